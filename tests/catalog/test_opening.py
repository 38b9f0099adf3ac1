"""Catalogues are opened: by others, again, after damage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from catalog_products import COUNT, ids, reopen

from acebert.catalog import ProductCatalog, live_index, maintenance, opening, product_catalog, store
from acebert.catalog.store import FORMAT
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor


def test_another_model_or_processor_is_refused(
    catalog: ProductCatalog, model: AceBertModel, tiny_processor: AceBertProcessor
) -> None:
    catalog.close()
    tiny_processor.title_max_length = 5
    with pytest.raises(ValueError, match=r"The processor of .* did not make the catalogue"):
        ProductCatalog.load(catalog.path, model, tiny_processor)
    tiny_processor.title_max_length = catalog._encoder.processor.title_max_length = 64
    with torch.no_grad():
        model.product_projection.weight.add_(1)
    with pytest.raises(ValueError, match=r"The product weights of .* did not make the catalogue .* build it again"):
        ProductCatalog.load(catalog.path, model, tiny_processor)
    with pytest.raises(ValueError, match="model and its processor, or neither"):
        ProductCatalog.load(catalog.path, model)


def test_one_writer_and_many_readers(catalog: ProductCatalog) -> None:
    encoder = catalog._encoder
    with pytest.raises(RuntimeError, match=r"Another process has .* read_only=True"):
        ProductCatalog.load(catalog.path)
    catalog.upsert([{"id": 7, "title": "blue mug"}])
    with ProductCatalog.load(catalog.path, encoder.model, encoder.processor, read_only=True) as reader:
        assert 7 in reader
        assert ids(reader.search("blue mug")) == ids(catalog.search("blue mug"))
        with pytest.raises(RuntimeError, match="read-only"):
            reader.delete([7])


@pytest.mark.parametrize("content", ["", '{"chan'])
def test_an_index_whose_record_was_lost_is_made_again(content: str, build: Callable[..., ProductCatalog]) -> None:
    catalog = build(index="edge")
    catalog.upsert([{"id": 7, "title": "blue mug"}])
    before = ids(catalog.search("blue mug"))
    encoder = catalog._encoder
    catalog.close()
    (record,) = (catalog.path / "index").rglob("applied.json")
    record.write_text(content)  # as a power cut may leave it
    assert maintenance.read_applied(record.parent) is None
    with ProductCatalog.load(catalog.path, encoder.model, encoder.processor) as again:
        assert ids(again.search("blue mug")) == before and len(again) == COUNT + 1
    assert maintenance.read_applied(record.parent) == 1


def test_a_catalogue_on_the_hub_is_read_only(catalog: ProductCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, repo_type: str, revision: str | None) -> str:
        if (name, repo_type, revision) != ("shop/products", "dataset", "v1"):
            raise OSError("not found")
        return str(catalog.path)

    monkeypatch.setattr(product_catalog, "snapshot_download", download)
    with ProductCatalog.load("shop/products", revision="v1") as opened:
        assert ids(opened.search(like=100)) == ids(catalog.search(like=100))
        with pytest.raises(RuntimeError, match="read-only"):
            opened.delete([100])
    with pytest.raises(FileNotFoundError, match="shop/other is no folder here, and no dataset repository"):
        ProductCatalog.load("shop/other")


def test_without_a_model(catalog: ProductCatalog) -> None:
    similar = ids(catalog.search(like=100))
    catalog.close()
    with ProductCatalog.load(catalog.path) as opened:
        assert ids(opened.search(like=100)) == similar
        with pytest.raises(ValueError, match="load the catalogue with its model"):
            opened.search("red shirt")
        with pytest.raises(ValueError, match="load the catalogue with its model"):
            opened.upsert([{"id": 7, "title": "mug"}])
        assert opened.delete([100]) == 1
    with pytest.raises(RuntimeError, match="is closed"):
        opened.search(like=101)


@pytest.mark.parametrize("index", ["edge", "memory"])
def test_a_lost_index_is_made_again(build: Callable[..., ProductCatalog], index: str) -> None:
    catalog = build(index=index)
    catalog.upsert([{"id": 7, "title": "blue mug"}])
    expected = ids(catalog.search("blue mug", top_k=COUNT))
    catalog.close()
    for file in sorted((catalog.path / "index").rglob("*"), reverse=True) if (catalog.path / "index").exists() else ():
        file.rmdir() if file.is_dir() else file.unlink()
    encoder = catalog._encoder
    with ProductCatalog.load(catalog.path, encoder.model, encoder.processor) as opened:
        assert ids(opened.search("blue mug", top_k=COUNT)) == expected


def test_filling_a_server_goes_on_after_a_kill(
    build: Callable[..., ProductCatalog], server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(opening, "fill_index", killed)
        build(index=server)
    path = tmp_path / "catalog"
    with pytest.raises(FileExistsError, match="belongs to another: it stands for"):
        build(index=server, path=tmp_path / "other")
    with ProductCatalog.load(path) as opened:
        assert len(opened) == COUNT
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(live_index, "fill_index", killed)
            opened.optimize()
    with ProductCatalog.load(path) as opened:
        assert len(opened) == COUNT and opened.photo(opened.get(100))


def test_ctrl_c_while_indexing_leaves_no_half_index(
    build: Callable[..., ProductCatalog], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(maintenance, "fill_index", killed)
        build()
    with ProductCatalog.load(tmp_path / "catalog") as opened:
        assert len(opened) == COUNT


def test_folders_that_are_no_catalogue(tmp_path: Path, build: Callable[..., ProductCatalog]) -> None:
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        ProductCatalog.load(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        build(path=tmp_path / "full")
    catalog = build()
    catalog.close()
    file = catalog.path / "catalog.json"
    file.write_text(file.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(ValueError, match=f"format 99 and this version reads {FORMAT}"):
        ProductCatalog.load(catalog.path)


def test_a_folder_that_lost_its_empty_folders_opens(catalog: ProductCatalog) -> None:
    (catalog.path / "changes").rmdir()
    with reopen(catalog) as again:
        again.delete([100])
        assert 100 not in again


def test_a_write_that_was_torn_is_not_seen(catalog: ProductCatalog) -> None:
    (catalog.path / "changes" / "00000001.unfinished").write_bytes(b"half a file")
    (catalog.path / "products" / "00001").mkdir()  # of a merge that was killed
    again = reopen(catalog)
    assert len(again) == COUNT and store.products_folder(again.path, 0).exists()
    assert not (again.path / "products" / "00001").exists()
    again.close()
