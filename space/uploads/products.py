"""An upload's rows as products with clean values, and a list of what could not be used."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Image, Value

from acebert.data.photo_cells import decode_photo_text, is_address, split_photos
from acebert.data.photo_columns import MAX_IMAGES, PHOTOS
from acebert.data.tables import RowProblem
from acebert.data.tables.table import megabytes
from acebert.data.values import parse_numbers, read_values
from acebert.space.uploads import Upload
from acebert.space.uploads.columns import CANONICAL, UploadColumns
from acebert.space.uploads.photo_zip import PhotoZip, check_photo
from acebert.utils.words import cut

ROWS_PER_WRITE = 64  # products whose photos are held in memory at a time


def read_products(upload: Upload, columns: UploadColumns) -> tuple[Dataset, list[RowProblem]]:
    """Products with clean values, and everything that could not be used.

    Returns:
        `tuple[Dataset, list[RowProblem]]`: the products, in order, kept in a file of their own in the upload's
        folder; and the bad rows in order. Products and skipped rows together are `upload.num_rows`. The dataset has the
        columns `id` (string, unique), `title` (string or None), `image` (`Image(decode=False)`, its bytes or None, or a
        list of them where a product has several; every photo has been decoded once and is none of the bad ones), and
        each attribute under its own name: string (dates as ISO 8601), float64, or int64 where all numbers are whole.

    Raises:
        `ValueError`: where the columns can't be right, or the photos together are over the limit.
    """
    _check_columns(upload, columns)
    if upload.zip is not None:
        upload.zip.read_names.clear()
    bad = list(upload.unread)
    several = _have_several(upload, columns)
    image_feature = PHOTOS if several else Image(decode=False)
    features = Features({"id": Value("string"), "title": Value("string"), "image": image_feature})
    attributes: dict[str, list[Any]] = {}
    for name, kind in columns.attributes.items():
        attributes[name], features[name] = upload.texts[name], Value("string")
        if kind == "number":
            attributes[name], features[name] = _numbers(upload, name, bad)
        elif kind == "date":
            attributes[name] = _dates(upload, name)
    ids = upload.texts[columns.id] if columns.id else [str(number) for number in upload.rows]
    titles = upload.texts[columns.title] if columns.title else [None] * len(upload.rows)
    first_rows: dict[str, int] = {}
    photo_bytes = 0

    def products() -> Iterator[dict[str, Any]]:
        nonlocal photo_bytes
        for index, (row, product_id, title) in enumerate(zip(upload.rows, ids, titles, strict=True)):
            if product_id is None:
                bad.append(RowProblem(row, columns.id or "", "", "the product has no id", skipped=True))
                continue
            if product_id in first_rows:
                reason = f"row {first_rows[product_id]} has the same id"
                bad.append(RowProblem(row, columns.id or "", product_id, reason, skipped=True))
                continue
            first_rows[product_id] = row
            photos = _photos(upload, columns.image, index, product_id, bad)
            if not photos and title is None:
                bad.append(RowProblem(row, "", product_id, "it has neither a title nor a photo", skipped=True))
                continue
            photo_bytes += sum(map(len, photos))
            if photo_bytes > upload.limits.unpacked_bytes:
                most = megabytes(upload.limits.unpacked_bytes)
                raise ValueError(f"The products' photos are larger than {most} together: drop fewer or smaller ones.")
            images = [{"bytes": photo, "path": None} for photo in photos]
            image = images if several else next(iter(images), None)
            facts = {name: values[index] for name, values in attributes.items()}
            yield {"id": product_id, "title": title, "image": image, **facts}

    dataset = _keep(products(), features, upload.folder)
    return dataset, sorted(bad, key=lambda entry: entry.row)


def _check_columns(upload: Upload, columns: UploadColumns) -> None:
    """Refuses roles that no column of the upload can play."""
    for role, name in (("id", columns.id), ("title", columns.title), *(("attribute", n) for n in columns.attributes)):
        if name is not None and name not in upload.texts:
            problem = "holds photos" if name in upload.photos else "is not there"
            raise ValueError(
                f"The column {name!r} {problem} and can't be the {role}: take one of {list(upload.texts)}."
            )
    if columns.image is not None and columns.image not in upload.columns:
        raise ValueError(f"The column {columns.image!r} is not there: the photo's is one of {upload.columns}.")
    if columns.title is None and columns.image is None and upload.zip is None:
        raise ValueError("Which column holds the titles, or the photos? A product needs one of them.")
    for name, kind in columns.attributes.items():
        if name in CANONICAL:
            raise ValueError(f"An attribute can't be named {name!r}: rename the column or leave it out.")
        if kind not in ("text", "number", "date"):
            raise ValueError(f"The attribute {name!r} is of type {kind!r}: take 'text', 'number' or 'date'.")


def _numbers(upload: Upload, name: str, bad: list[RowProblem]) -> tuple[list[float | int | None], Value]:
    """A column's numbers and their type; the few values that are none become None and are listed."""
    texts = upload.texts[name]
    read = read_values(name, texts)
    if read.kind != "number":
        wrong = [text for text, number in zip(texts, parse_numbers(texts), strict=True) if text and number is None]
        filled = sum(text is not None for text in texts)
        raise ValueError(
            f"{len(wrong):,} of the {filled:,} values of {cut(name)!r} are no numbers, such as {cut(wrong[0])!r}: "
            "take the column as text."
        )
    bad += [RowProblem(upload.rows[i], name, texts[i] or "", "it is not a number", skipped=False) for i in read.unread]
    return read.values, read.feature


def _dates(upload: Upload, name: str) -> list[str | None]:
    """A column's dates in ISO 8601."""
    read = read_values(name, upload.texts[name])
    if read.kind != "date":
        raise ValueError(f"Not all values of {cut(name)!r} are dates: take the column as text.")
    return read.values


def _have_several(upload: Upload, columns: UploadColumns) -> bool:
    """Whether a product may have several photos."""
    if columns.image in upload.texts:
        return any(len(split_photos(cell)) > 1 for cell in upload.texts[columns.image] if cell)
    if columns.image is None and upload.zip is not None:
        ids = upload.texts[columns.id] if columns.id else map(str, upload.rows)
        return any(upload.zip.numbered(product_id) for product_id in ids if product_id)
    return False


def _photos(upload: Upload, column: str | None, index: int, product_id: str, bad: list[RowProblem]) -> list[bytes]:
    """The first photos of a product that can be had, at most `MAX_IMAGES`; those that can't be had are listed."""
    photos: list[bytes] = []

    def tell(value: str, error: ValueError) -> None:
        bad.append(RowProblem(upload.rows[index], column or "", value, str(error), skipped=False))

    try:
        named = _name_photos(upload, column, index, product_id)
    except ValueError as error:
        tell(product_id, error)
        return photos
    for name, read in named:
        if len(photos) == MAX_IMAGES:
            break
        try:
            photo = read()
            check_photo(photo, upload.limits)
            photos.append(photo)
        except ValueError as error:
            tell(name, error)
    return photos


def _name_photos(
    upload: Upload, column: str | None, index: int, product_id: str
) -> list[tuple[str, Callable[[], bytes]]]:
    """What the photos of a product are called, and how each is read."""
    if column in upload.photos:
        photo = upload.photos[column][index].as_py()
        return [] if photo is None else [(f"{len(photo):,} bytes", lambda: photo)]
    archive = upload.zip
    if column is not None:
        names = split_photos(upload.texts[column][index] or "")
        return [(name, partial(_read_named, archive, name)) for name in names]
    if archive is None:
        return []
    first = archive.find_stem(product_id)
    if first is None:
        raise ValueError("no photo in the zip has the product's id for its name")
    return [(name, partial(archive.read, name)) for name in dict.fromkeys([first, *archive.numbered(product_id)])]


def _read_named(archive: PhotoZip | None, name: str) -> bytes:
    if (data := decode_photo_text(name)) is not None:
        return data
    found = archive.find(name) if archive else None
    if found is None and is_address(name):
        raise ValueError("it is a web address, and none is opened here: drop a zip of the photos under the same names")
    if archive is None:
        raise ValueError("it is the name of a photo, but no zip of photos was dropped")
    if found is None:
        raise ValueError("no photo in the zip has this name")
    return archive.read(found)


def _keep(products: Iterator[dict[str, Any]], features: Features, folder: Path) -> Dataset:
    """A dataset in a new Arrow file, so that its photos needn't be held in memory."""
    schema = features.arrow_schema
    with (
        tempfile.NamedTemporaryFile(dir=folder, prefix="products-", suffix=".arrow", delete=False) as file,
        pa.ipc.new_stream(file, schema) as writer,
    ):
        while part := list(islice(products, ROWS_PER_WRITE)):
            writer.write_batch(pa.RecordBatch.from_pylist(part, schema))
    return Dataset.from_file(file.name)
