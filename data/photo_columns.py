"""From what a column says of photos to the photos themselves: the first one of each product that can be had."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from datasets import Dataset, Image, List

from acebert.data.columns import column_kind, replace_column
from acebert.data.downloads import PhotoDownloads
from acebert.data.notes import tell
from acebert.data.photo_cells import PhotoFolder, decode_photo_text, find_placeholder, is_address, split_photos
from acebert.utils.words import cut

with suppress(ImportError):  # the extra "heic": from then on, Pillow opens iPhones' photos
    from pillow_heif import register_heif_opener

    register_heif_opener()

FIX = "Fix or remove it, or skip such rows with --on_bad_row skip."


def find_photos(
    products: Dataset,
    name: str,
    folder: str,
    on_bad_row: Literal["raise", "skip"] | None = None,
    downloads: PhotoDownloads | None = None,
) -> Dataset:
    """The products with one photo each, in place of texts that name photos or lists of photos.

    A cell may name several, see [`split_photos`]: the first that is there is taken, and that is told. It may also hold
    a photo in base64.

    Args:
        products: one row per product.
        name: of the column; one that holds single photos is left alone.
        folder: what paths are relative to.
        on_bad_row: what to do with a product none of whose photos can be had. "skip" and None leave a path that can't
            be opened in its place, for those who look for bad rows; "skip" refuses a column most of which is so.
        downloads: gets photos that are web addresses; None refuses them.

    Raises:
        ValueError: see `on_bad_row`.
    """
    feature = products.features[name]
    if column_kind(feature) in ("string", "strings"):
        cells = [split_photos(cell) if isinstance(cell, str) else cell or [] for cell in products[name][:]]
        photos = _find_named(cells, name, folder, on_bad_row, downloads)
    elif isinstance(feature, List):
        if isinstance(feature.feature, Image):
            products = products.cast_column(name, List(Image(decode=False)))
        cells = [cell or [] for cell in products[name][:]]
        photos = [next((photo for photo in cell if photo is not None), None) for cell in cells]
        photos = [{"bytes": photo, "path": None} if isinstance(photo, bytes) else photo for photo in photos]
    else:
        return products
    if several := sum(len(cell) > 1 for cell in cells):
        tell(f"{several:,} products have several photos in {cut(name)!r}: the first that is there is used.")
    paths = [str(photo["path"]) for photo in photos if photo is not None and photo["path"]]
    if shared := find_placeholder(paths):
        tell(
            f"{shared[1]:,} of {len(paths):,} photos in {cut(name)!r} are the same, {cut(shared[0])}. If it is a "
            "placeholder, take it out: a product without a photo is found by its title."
        )
    return replace_column(products, name, photos, Image(decode=False))


def _find_named(
    cells: Sequence[Sequence[str]],
    name: str,
    folder: str,
    on_bad_row: Literal["raise", "skip"] | None,
    downloads: PhotoDownloads | None,
) -> list[dict[str, Any] | None]:
    """The first photo of each cell that can be had, as a dataset holds it; None for an empty cell."""
    places = downloads.fetch([text for cell in cells for text in cell if is_address(text)]) if downloads else {}
    finder = PhotoFolder(folder)
    photos: list[dict[str, Any] | None] = []
    problems: list[tuple[int, str]] = []
    for row, cell in enumerate(cells):
        reasons = []
        for text in cell:
            try:
                photos.append(_have(text, finder, places))
                break
            except ValueError as error:
                reasons.append(str(error))
        else:
            photos.append(_unfound(cell[0], folder) if cell else None)
            if cell:
                problems.append((row, reasons[0]))
    count = sum(map(bool, cells))
    if problems and on_bad_row:
        first = f"{name} of row {problems[0][0]} {problems[0][1]}"
        if len(problems) > max(1, count / 2):
            raise ValueError(f"{len(problems):,} of {count:,} photos can't be had: the first, {first}.")
        if on_bad_row == "raise":
            raise ValueError(f"{first}. {FIX}")
    return photos


def _have(text: str, finder: PhotoFolder, places: Mapping[str, str | ValueError]) -> dict[str, Any]:
    """A photo that a text names or holds.

    Args:
        text: of [`split_photos`].
        finder: looks for files.
        places: of the addresses that were downloaded, the file, or why there is none.

    Raises:
        ValueError: if it can't be had; the message follows a row's name.
    """
    if (data := decode_photo_text(text)) is not None:
        return {"bytes": data, "path": None}
    if is_address(text):
        place = places.get(text, ValueError("download the photos and give their paths, or let --download_photos do it"))
        if isinstance(place, ValueError):
            raise ValueError(f"is the URL {cut(text)}: {place}")
        return {"bytes": None, "path": place}
    found = finder.find(text)
    if found is None:
        raise ValueError(
            f"is {cut(text)!r}, and there is no such file in {finder.folder!r}, in any letter case: paths are relative "
            "to the table"
        )
    return {"bytes": None, "path": found}


def _unfound(text: str, folder: str) -> dict[str, Any]:
    """What stands for a photo that can't be had: reading it says why."""
    return {"bytes": None, "path": cut(text) if is_address(text) else os.path.join(folder, cut(text))}
