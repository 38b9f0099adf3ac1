"""From what a column says of photos to the photos themselves: those of each product that can be had."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from datasets import Dataset, Image, List, concatenate_datasets

from acebert.data.columns import column_kind, replace_column
from acebert.data.downloads import PhotoDownloads
from acebert.data.notes import tell
from acebert.data.photo_cells import PhotoFolder, decode_photo_text, find_placeholder, is_address, split_photos
from acebert.utils.words import cut

with suppress(ImportError):  # the extra "heic": from then on, Pillow opens iPhones' photos
    from pillow_heif import register_heif_opener

    register_heif_opener()

PHOTOS = List(Image(decode=False))  # a column of several photos a product
MAX_IMAGES = 4  # a shop's front, back, side and detail; each costs a product's encoding as much as the first
FIX = "Fix or remove it, or skip such rows with --on_bad_row skip."


def find_photos(
    products: Dataset,
    name: str,
    folder: str,
    on_bad_row: Literal["raise", "skip"] | None = None,
    downloads: PhotoDownloads | None = None,
    max_images: int | None = None,
) -> Dataset:
    """The products with their photos, in place of texts that name them.

    A cell may name several, see [`split_photos`], of which those are taken that are there. It may also hold a photo in
    base64. What is left out is told.

    Args:
        products: one row per product.
        name: of the column; one that holds single photos is left alone.
        folder: what paths are relative to.
        on_bad_row: what to do with a product none of whose photos can be had. "skip" and None leave a path that can't
            be opened in its place, for those who look for bad rows; "skip" refuses a column most of which is so.
        downloads: gets photos that are web addresses; None refuses them.
        max_images: photos to take of a product, the first that are there; None takes all.

    Returns:
        The products with a column of `PHOTOS` where one has several, else of `Image(decode=False)`.

    Raises:
        ValueError: see `on_bad_row`.
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1, got {max_images}.")
    feature = products.features[name]
    if column_kind(feature) in ("string", "strings"):
        cells = [split_photos(cell) if isinstance(cell, str) else cell or [] for cell in products[name][:]]
        found = _find_named(cells, name, folder, on_bad_row, downloads)
    elif isinstance(feature, List):
        if isinstance(feature.feature, Image):
            products = products.cast_column(name, PHOTOS)
        cells = [[photo for photo in cell or [] if photo is not None] for cell in products[name][:]]
        found = [
            [{"bytes": each, "path": None} if isinstance(each, bytes) else each for each in cell] for cell in cells
        ]
    else:
        return products
    photos = [cell[:max_images] for cell in found]
    if more := sum(len(cell) > len(taken) for cell, taken in zip(found, photos, strict=True)):
        tell(
            f"{more:,} products have more than {max_images} photos in {cut(name)!r}: the first {max_images} that are "
            "there are used. Raise max_images (--max_images) to use more."
        )
    paths = [str(photo["path"]) for cell in photos for photo in cell if photo["path"]]
    if shared := find_placeholder(paths):
        tell(
            f"{shared[1]:,} of {len(paths):,} photos in {cut(name)!r} are the same, {cut(shared[0])}. If it is a "
            "placeholder, take it out: a product without a photo is found by its title."
        )
    if any(len(cell) > 1 for cell in photos):
        return replace_column(products, name, photos, PHOTOS)
    return replace_column(products, name, [cell[0] if cell else None for cell in photos], Image(decode=False))


def concatenate_products(parts: Sequence[Dataset], name: str | None) -> Dataset:
    """Products of [`find_photos`] one after another, some of which may have several photos in the column `name`."""
    if any(part.features.get(name) == PHOTOS for part in parts):
        parts = [_to_lists(part, str(name)) if name in part.column_names else part for part in parts]
    return concatenate_datasets(list(parts))


def _to_lists(products: Dataset, name: str) -> Dataset:
    if products.features[name] == PHOTOS:
        return products
    photos = products[name][:]
    return replace_column(products, name, [[] if photo is None else [photo] for photo in photos], PHOTOS)


def _find_named(
    cells: Sequence[Sequence[str]],
    name: str,
    folder: str,
    on_bad_row: Literal["raise", "skip"] | None,
    downloads: PhotoDownloads | None,
) -> list[list[dict[str, Any]]]:
    """The photos of each cell that can be had, as a dataset holds them."""
    places = downloads.fetch([text for cell in cells for text in cell if is_address(text)]) if downloads else {}
    finder = PhotoFolder(folder)
    photos: list[list[dict[str, Any]]] = []
    problems: list[tuple[int, str]] = []
    missing: list[tuple[int, str]] = []  # beside others of their product that are there
    for row, cell in enumerate(cells):
        had, reasons = [], []
        for text in cell:
            try:
                had.append(_have(text, finder, places))
            except ValueError as error:
                reasons.append(str(error))
        if had:
            missing += [(row, reason) for reason in reasons]
        elif cell:
            had = [_unfound(cell[0], folder)]
            problems.append((row, reasons[0]))
        photos.append(had)
    if missing:
        row, reason = missing[0]
        tell(
            f"{len(missing):,} photos in {cut(name)!r} can't be had and are left out, for their products have others: "
            f"the first, {name} of row {row} {reason}."
        )
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
