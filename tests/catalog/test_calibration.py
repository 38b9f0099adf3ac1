"""By what it is told that nothing fits: kept in the catalogue's folder, and made again when the products are others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import unit_vectors

from acebert.catalog import ProductCatalog, calibration
from acebert.catalog.calibration import Calibration, Calibrations
from acebert.catalog.indexes.memory import MemoryIndex
from acebert.catalog.snapshots import save_snapshot

DIM = 8


class Words:
    """Stands in for an encoder with a vocabulary; counts the queries that it encodes."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.encoded = seed, 0
        self.processor = self.tokenizer = self
        self.vocabulary = {chr(97 + i // 26) + chr(97 + i % 26) + "aa": i for i in range(150)}

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary

    def encode_queries(self, texts: list[str], photos: None) -> np.ndarray:
        self.encoded += len(texts)
        return unit_vectors(calibration.RANDOM_QUERIES, DIM, seed=self.seed).numpy()[: len(texts)]


@pytest.fixture
def catalog(build: Callable[..., ProductCatalog]) -> ProductCatalog:
    return build(index="memory")


@pytest.fixture
def index(catalog: ProductCatalog) -> MemoryIndex:
    """20 products, beside the catalogue's files."""
    made = MemoryIndex({})
    keys = [f"00000000-0000-0000-0000-{i:012d}" for i in range(20)]
    made.upsert(keys, {"product": unit_vectors(20, DIM, seed=3).numpy()}, [None] * 20, [{}] * 20)
    return made


def test_a_restart_reads_it(catalog: ProductCatalog, index: MemoryIndex) -> None:
    store = catalog._store
    first, second, changed = Words(), Words(), Words(seed=1)
    made = Calibrations(lambda: store, keep=True).get(index, first, "product")
    assert made is not None and first.encoded == calibration.RANDOM_QUERIES and 0 < made.confidence(made.mean) < 1
    again = Calibrations(lambda: store, keep=False)
    assert again.get(index, second, "product") == again.get(index, second, "product")
    assert second.encoded == 1  # the query by which the encoder is known
    other = Calibrations(lambda: store, keep=False).get(index, changed, "product")
    assert other != made and changed.encoded == 1 + calibration.RANDOM_QUERIES
    assert Calibrations(lambda: store, keep=False).get(index, Words(), "product").mean == pytest.approx(made.mean)


@pytest.mark.parametrize("kept", ["", "[]", "{", '{"product": {"average": 1}}'])
def test_a_broken_file_is_made_again(catalog: ProductCatalog, index: MemoryIndex, kept: str) -> None:
    (catalog.path / calibration.FILE).write_text(kept)
    assert Calibrations(lambda: catalog._store, keep=True).get(index, Words(), "product") is not None
    assert "mean" in json.loads((catalog.path / calibration.FILE).read_text())["product"]


def test_it_is_made_again_when_many_products_changed(catalog: ProductCatalog, index: MemoryIndex) -> None:
    encoder, calibrations = Words(), Calibrations(lambda: catalog._store, keep=True)
    made = calibrations.get(index, encoder, "product")
    assert made.products == 20 and made.change == 0
    catalog.upsert([{"id": 900 + i, "title": "new"} for i in range(4)])
    assert calibrations.get(index, encoder, "product") is made  # a fifth, and no more
    catalog.update_attributes({900: {"stock": 2}})
    assert calibrations.get(index, encoder, "product").change == 2
    assert encoder.encoded == 2 * calibration.RANDOM_QUERIES
    catalog.delete([900])
    catalog.optimize()
    assert calibrations.get(index, encoder, "product").change == 3


def test_a_snapshot_has_it_and_a_read_only_catalogue_writes_none(
    catalog: ProductCatalog, index: MemoryIndex, tmp_path: Path
) -> None:
    Calibrations(lambda: catalog._store, keep=False).get(index, Words(), "product")
    assert not (catalog.path / calibration.FILE).exists()
    Calibrations(lambda: catalog._store, keep=True).get(index, Words(), "product")
    save_snapshot(catalog.path, tmp_path / "copy")
    assert (tmp_path / "copy" / calibration.FILE).exists()


def test_nothing_is_said_of_no_products(catalog: ProductCatalog) -> None:
    encoder: Any = Words()
    assert Calibrations(lambda: catalog._store, keep=True).get(MemoryIndex({}), encoder, "product") is None
    assert Calibration(0.5, 0.0).confidence(0.6) == pytest.approx(1.0)
