"""Vectors for other engines: encoded from a dataset, or written from a catalogue."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from accelerate import Accelerator
from catalog_products import COUNT
from datasets import Dataset, load_dataset
from helpers import Killed

from acebert.catalog import ProductCatalog
from acebert.catalog.source import Source
from acebert.catalog.vector_export import encode_dataset, export_catalog
from acebert.catalog.vector_files import MANIFEST, VectorFiles, convert
from acebert.commands import encode as command
from acebert.encoding.corpus_encoder import CorpusEncoder
from acebert.encoding.encoder import Encoder
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor


@pytest.fixture
def encode(model: AceBertModel, tiny_processor: AceBertProcessor, tmp_path: Path) -> Callable[..., int]:
    def call(dataset: Dataset, folder: Path = tmp_path / "vectors", **options: Any) -> int:
        encoder = CorpusEncoder(model, tiny_processor, Accelerator(cpu=True), batch_size=8)
        return encode_dataset(encoder, Source.of(dataset, "id", "title", "image", None), folder, **options)

    return call


def read(folder: Path) -> list[dict[str, Any]]:
    contents = json.loads((folder / MANIFEST).read_text())
    if contents["files"][0].endswith("parquet"):
        return [row for name in contents["files"] for row in pq.read_table(folder / name).to_pylist()]
    return [json.loads(line) for name in contents["files"] for line in (folder / name).read_text().splitlines()]


def test_a_dataset_keeps_its_order_types_and_gets_the_models_vectors(
    encode: Callable[..., int],
    dataset: Dataset,
    rows: list[dict[str, Any]],
    model: AceBertModel,
    tiny_processor: AceBertProcessor,
    tmp_path: Path,
) -> None:
    names = ("product", "title", "image")
    assert encode(dataset, vectors=names, shard_rows=15) == COUNT
    folder = tmp_path / "vectors"
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"products-{number:05d}.parquet" for number in range(3)),
        MANIFEST,
    ]
    contents = json.loads((folder / MANIFEST).read_text())
    assert (contents["products"], contents["dim"], contents["id_type"]) == (COUNT, 16, "integer")
    assert contents["model"] == Encoder(model, tiny_processor).describe()
    assert contents["attributes"]["price"] == "number" and contents["attributes"]["sizes"] == "strings"
    found = read(folder)
    for product, row in zip(found, rows, strict=True):
        expected = {name: row[name] for name in ("id", "title", "kind", "gender", "price", "stock", "sale", "sizes")}
        assert {name: product[name] for name in expected} == expected
    assert found[3]["title_vector"] is None and found[4]["image_vector"] is None
    encoder = Encoder(model, tiny_processor)
    for number in (0, 3, 4, 20):
        wanted = encoder.encode_products([rows[number]["title"]], [rows[number]["image"]], names)
        for name in names:
            if found[number][f"{name}_vector"] is not None:
                assert np.allclose(found[number][f"{name}_vector"], wanted[name][0], atol=1e-3)  # it rounds to halves
                assert np.linalg.norm(found[number][f"{name}_vector"]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("precision", "least"), [("float32", 1 - 1e-6), ("float16", 1 - 1e-5), ("int8", 0.9995)])
def test_json_lines_hold_the_same_in_each_precision(
    precision: str, least: float, encode: Callable[..., int], dataset: Dataset, tmp_path: Path
) -> None:
    encode(dataset, tmp_path / "full")
    encode(dataset, format="jsonl", precision=precision)
    for line, row in zip(read(tmp_path / "vectors"), read(tmp_path / "full"), strict=True):
        vector, full = np.array(line.pop("product_vector")), np.array(row.pop("product_vector"))
        assert line == {name: value for name, value in row.items() if value is not None}
        assert vector @ full / np.linalg.norm(vector) / np.linalg.norm(full) > least
        assert precision != "int8" or np.abs(vector).max() == 127


def test_a_killed_call_goes_on_and_a_finished_one_does_nothing(
    encode: Callable[..., int], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(dataset, tmp_path / "whole", shard_rows=10)
    write, written = VectorFiles._write_shard, []

    def kill(self: VectorFiles, *shard: Any) -> None:
        if len(written) == 2:
            raise Killed
        written.append(write(self, *shard))

    monkeypatch.setattr(VectorFiles, "_write_shard", kill)
    with pytest.raises(Killed):
        encode(dataset, shard_rows=10)
    assert not (tmp_path / "vectors" / MANIFEST).exists()
    monkeypatch.setattr(VectorFiles, "_write_shard", write)
    encoded = CorpusEncoder.encode
    monkeypatch.setattr(CorpusEncoder, "encode", lambda *arguments: pytest.fail("encoded again"))
    encode(dataset, shard_rows=10)
    assert read(tmp_path / "vectors") == read(tmp_path / "whole")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "vectors").iterdir()}
    assert encode(dataset, shard_rows=10) == COUNT
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "vectors").iterdir()} == before
    with pytest.raises(FileExistsError, match="of other products, weights or options"):
        encode(dataset, shard_rows=11)
    monkeypatch.setattr(CorpusEncoder, "encode", encoded)
    encode(dataset, shard_rows=11, overwrite=True)
    assert len(json.loads((tmp_path / "vectors" / MANIFEST).read_text())["files"]) == 4


def test_nothing_of_others_is_overwritten(encode: Callable[..., int], dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "letter.txt").write_text("Dear Ada")
    with pytest.raises(FileExistsError, match="something else"):
        encode(dataset, overwrite=True)
    assert (tmp_path / "vectors" / "letter.txt").read_text() == "Dear Ada"


def test_bad_rows_stop_it_or_are_listed(
    encode: Callable[..., int], rows: list[dict[str, Any]], dataset: Dataset, tmp_path: Path
) -> None:
    bad = Dataset.from_list(
        [*rows, {"id": rows[0]["id"], "title": "twice"}, {"id": 7, "title": "half", "image": {"bytes": b"no photo"}}],
        features=dataset.features,
    )
    with pytest.raises(ValueError, match=r"row 40 .*, id: is row 0's too.*--on_bad_row skip"):
        encode(bad)
    assert encode(bad, on_bad_row="skip") == COUNT
    listed = [json.loads(line) for line in (tmp_path / "vectors" / "bad_rows.jsonl").read_text().splitlines()]
    assert [(row["row"], row["field"]) for row in listed] == [(40, "id"), (41, "image")]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"vectors": []}, "vectors must be of"), ({"vectors": ["text"]}, "'text'"), ({"shard_rows": 0}, "at least 1")],
)
def test_wrong_options(encode: Callable[..., int], dataset: Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(dataset, **options)


def test_int8_keeps_directions() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    rounded = convert(vectors, "int8").astype(np.float32)
    cosines = (vectors * rounded).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(rounded, axis=1)
    assert cosines.min() > 0.999


def test_a_catalogue_is_written_with_its_changes(build: Callable[..., ProductCatalog], tmp_path: Path) -> None:
    catalog = build(index="memory")
    catalog.upsert([{"id": 1, "title": "blue mug", "price": 2.0}, {"id": 101, "title": "green bag"}])
    catalog.delete([102])
    catalog.update_attributes({103: {"price": 99.0, "gender": None}})
    assert export_catalog(catalog.path, tmp_path / "vectors", shard_rows=16, vectors=["product", "title"]) == COUNT
    found = {row["id"]: row for row in read(tmp_path / "vectors")}
    assert len(found) == COUNT and 102 not in found
    assert (found[101]["title"], found[103]["price"], found[103]["gender"]) == ("green bag", 99.0, None)
    products, vectors = catalog.sample(COUNT)
    for product, vector in zip(products, vectors, strict=True):
        assert found[product.id]["title"] == product.title
        assert np.allclose(found[product.id]["product_vector"], vector, atol=1e-6)
    assert "image" not in found[101]
    catalog.optimize()
    export_catalog(catalog.path, tmp_path / "merged", vectors=["product", "title"])
    assert {row["id"]: row for row in read(tmp_path / "merged")} == found


def test_the_command(
    build: Callable[..., ProductCatalog],
    model: AceBertModel,
    tiny_processor: AceBertProcessor,
    catalog_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    flags = ["--model_name_or_path", str(tmp_path / "model"), "--mixed_precision", "no"]
    flags += ["--dataset_name", str(catalog_folder), "--split", "train+validation"]
    command.main([*flags, "--output_dir", str(tmp_path / "encoded"), "--format", "jsonl"])
    assert "The vectors of 80 products are in" in capsys.readouterr().out
    data = str(tmp_path / "encoded" / "products-*.jsonl")
    assert load_dataset("json", data_files=data, split="train").num_rows == 80
    build(index="memory").close()
    flags = ["--catalog", str(tmp_path / "catalog"), "--output_dir"]
    command.main([*flags, str(tmp_path / "exported"), "--precision", "int8"])
    assert len(read(tmp_path / "exported")) == COUNT
    with pytest.raises(SystemExit, match="something else: choose"):
        command.main([*flags, str(tmp_path / "catalog")])
    with pytest.raises(SystemExit, match="not by both"):
        command.main(["--dataset_name", "a", *flags, "b"])
    with pytest.raises(SystemExit, match="holds no catalogue"):
        command.main(["--catalog", str(tmp_path / "model"), "--output_dir", str(tmp_path / "none")])
