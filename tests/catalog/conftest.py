"""A tiny model and 40 products, from which the tests of this folder make catalogues."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from catalog_products import COUNT, FEATURES
from datasets import Dataset
from helpers import product_rows
from qdrant_server import QdrantStandIn, qdrant_name

from acebert.catalog import ProductCatalog
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Products with every kind of attribute, some without title, photo or values."""
    rows = product_rows(COUNT)
    for i, row in enumerate(rows):
        row.pop("hot_query")
        row |= {
            "price": i + 0.5 if i % 5 else None,
            "stock": i % 3,
            "sale": i % 4 == 0,
            "sizes": ["s", "m", "l"][: i % 4],
        }
    rows[3]["title"] = None
    rows[4]["image"] = None
    return rows


@pytest.fixture
def dataset(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(rows, features=FEATURES)


@pytest.fixture
def model(tiny_config: Callable[..., Any]) -> AceBertModel:
    torch.manual_seed(0)
    return AceBertModel(tiny_config()).eval()


@pytest.fixture
def build(
    model: AceBertModel, tiny_processor: AceBertProcessor, dataset: Dataset, tmp_path: Path
) -> Iterator[Callable[..., ProductCatalog]]:
    opened = []

    def make(dataset: Dataset = dataset, path: Path = tmp_path / "catalog", **settings: Any) -> ProductCatalog:
        catalog = ProductCatalog.build(model, tiny_processor, dataset, path, **settings)
        opened.append(catalog)
        return catalog

    yield make
    for catalog in opened:
        catalog.close()


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a name on a Qdrant server that has no such name: the stand-in, or the user's by `make test-server`."""
    with qdrant_name("products") as url:
        yield url


@pytest.fixture
def qdrant() -> Iterator[QdrantStandIn]:
    """A stand-in that can be had to fail."""
    with QdrantStandIn() as stand_in:
        yield stand_in


@pytest.fixture(params=["edge", "memory", "server"])
def catalog(request: pytest.FixtureRequest, build: Callable[..., ProductCatalog], server: str) -> ProductCatalog:
    return build(index=server if request.param == "server" else request.param)
