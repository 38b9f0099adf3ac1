"""Where the vectors for other engines come from: a dataset that is encoded, or a catalogue that is encoded already."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate.utils import broadcast_object_list
from transformers.utils import logging

from acebert.catalog.source import Source
from acebert.catalog.store import PHOTOS, Products, ProductStore, Settings
from acebert.catalog.vector_files import VectorFiles
from acebert.data.cleaning import BadRow, OnBadRow, clean_text, drop_broken_photos, keep_first, write_bad_rows
from acebert.data.columns import Columns
from acebert.data.corpus import Corpus
from acebert.encoding.corpus_encoder import CorpusEncoder
from acebert.encoding.encoder import Encoder
from acebert.utils.fingerprints import json_sha256

logger = logging.get_logger(__name__)

SIDES = {"product": ("title", "image"), "title": ("title",), "image": ("image",)}
PRECISIONS = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}  # by the accelerator's names
READ_ROWS = 4096  # products at a time


def encode_dataset(
    encoder: CorpusEncoder,
    source: Source,
    folder: Path,
    *,
    on_bad_row: OnBadRow = "raise",
    overwrite: bool = False,
    **options: Any,
) -> int:
    """Encodes a dataset's products and writes [`VectorFiles`], by all processes. Stopped, the same call goes on.

    Args:
        encoder: of all processes. Its cache is a folder in `folder` until all is written.
        source: the products.
        folder: to write to.
        on_bad_row: "skip" leaves out rows that can't be used, and lists them in `bad_rows.jsonl`.
        overwrite: replace files of other products, weights or options.
        options: of [`VectorFiles`]: vectors, format, precision, shard_rows.

    Returns:
        The number of products.

    Raises:
        FileExistsError: the folder holds something else.
        ValueError: for a bad row where `on_bad_row` is "raise", for no good row, or for a wrong option.
    """
    bad = source.find_bad_rows()
    if bad and on_bad_row == "raise":
        raise ValueError(f"{len(bad)} bad rows, the first is {bad[0]}. Or skip such rows with --on_bad_row skip.")
    if on_bad_row == "skip":
        products, broken = drop_broken_photos(source.products, source.columns)
        source, bad = replace(source, products=products), keep_first([*bad, *broken])
    rows = _without(len(source.products), bad)
    settings = _settings(encoder, source, source.ids([rows[0]])[0])
    files = VectorFiles(folder, settings, **options)
    plan = json_sha256([source.plan_sha256(settings, rows), _plan(files)])
    # The main process looks and tells the others, which may not see its disk.
    begin = files.start(plan, overwrite) if encoder.accelerator.is_main_process else None
    if not broadcast_object_list([begin])[0]:
        return len(rows)
    if bad and encoder.accelerator.is_main_process:
        write_bad_rows(bad, folder / "bad_rows.jsonl")
        logger.warning(f"{len(bad)} bad rows are listed in {folder / 'bad_rows.jsonl'}; the first: {bad[0]}.")
    encoder.cache = folder / "encoded"
    named = Columns(source.columns.id, source.columns.title, source.columns.image)
    corpus = Corpus.from_products(source.products.select(rows), [""] * len(rows), named, str(folder.name))
    vectors = {}
    for name in files.vectors:
        shown = corpus.shows(SIDES[name])
        if not shown.any():
            raise ValueError(f"No product has a {name}, so there are no {name} vectors: leave them out.")
        encoded = encoder.encode_products(corpus, SIDES[name])
        if encoder.accelerator.is_main_process:
            vectors[name] = np.where(shown[:, None], encoded.numpy(), np.float32(np.nan))
    if encoder.accelerator.is_main_process:
        place = {product_id: position for position, product_id in enumerate(corpus.ids)}
        files.write(_read(source, rows, vectors, place), len(rows))
        shutil.rmtree(encoder.cache)
    encoder.accelerator.wait_for_everyone()
    return len(rows)


def export_catalog(path: Path, folder: Path, *, overwrite: bool = False, **options: Any) -> int:
    """Writes a catalogue's products, with all changes, as [`VectorFiles`]. Nothing is encoded.

    The catalogue may be searched and changed meanwhile: what counts is how it was at the start.

    Args:
        path: folder of the catalogue.
        folder, overwrite, options: as for [`encode_dataset`].

    Returns:
        The number of products.

    Raises:
        FileExistsError: the folder holds something else.
        FileNotFoundError: `path` holds no catalogue, or it was optimized meanwhile.
        ValueError: for a wrong option, or vectors that the catalogue doesn't have.
    """
    store = ProductStore(path)
    upto, total = store.last_change, store.count_products()
    files = VectorFiles(folder, store.settings, **options)
    plan = json_sha256([vars(store.settings), upto, _plan(files)], sort_keys=True)
    if files.start(plan, overwrite):
        tables = store.read_tables(upto, without=PHOTOS)
        files.write((Products.from_table(table, store.settings) for table in tables), total)
    return total


def _without(count: int, bad: Sequence[BadRow]) -> list[int]:
    left_out = {row.row for row in bad}
    rows = [row for row in range(count) if row not in left_out]
    if not rows:
        raise ValueError(f"None of the {count} rows can be used, the first is {bad[0]}.")
    return rows


def _settings(encoder: CorpusEncoder, source: Source, first_id: Any) -> Settings:
    model = Encoder(encoder.model, encoder.processor)
    described = model.describe() | {"precision": PRECISIONS[encoder.accelerator.mixed_precision]}
    id_type: Literal["string", "integer"] = "string" if isinstance(first_id, str) else "integer"
    return Settings(
        described,
        model.dim,
        id_type,
        source.kinds(),
        sides=True,
        photo_size=0,
        index="memory",
        max_images=source.max_images,
    )


def _plan(files: VectorFiles) -> list[Any]:
    return [list(files.vectors), files.format, files.precision, files.shard_rows]


def _read(
    source: Source, rows: Sequence[int], vectors: dict[str, np.ndarray], place: dict[str, int]
) -> Iterator[Products]:
    """The products in the dataset's order, each with its vectors, which lie where `place` says."""
    for start in range(0, len(rows), READ_ROWS):
        some = rows[start : start + READ_ROWS]
        ids = source.ids(some)
        positions = [place[clean_text(product_id) or ""] for product_id in ids]
        attributes = {name: source.attribute(name, some) for name in source.columns.attributes}
        found = {name: array[positions] for name, array in vectors.items()}
        yield Products(ids, source.titles(some), [[]] * len(some), attributes, found)
