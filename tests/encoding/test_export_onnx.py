"""The export on a tiny checkpoint, against the checkpoint itself; and on the released one, by its cosine in 8 bits."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from datasets import load_dataset
from filelock import FileLock
from helpers import WORDS, draw
from transformers import AutoModel, AutoProcessor, BertTokenizer

import acebert
import acebert.commands.export_onnx as script
from acebert.catalog.product_catalog import ProductCatalog
from acebert.configuration_acebert import AceBertConfig, AceBertVisionConfig
from acebert.encoding import onnx_export
from acebert.encoding.onnx_model import OnnxAceBertModel
from acebert.evaluation.onnx_recall import load_tasks, measure_recall, recall_markdown
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.sample_catalog.generate import write_sample_catalog

ROOT = Path(acebert.__file__).parent
QUERIES = ["red shirt", "the black shoe of the men", "mug", "a b c d e f g h i j red green blue black shirt shoe bag"]
TITLES = ["red shirt", "the black shoe of the men a b c", None, "green mug", "j"]
PHOTOS = [draw("shirt", "red", 0), None, draw("bag", "blue", 2), draw("mug", "green", 1).resize((90, 20)), None]


def save_checkpoint(folder: Path, seed: int, **overrides: Any) -> Path:
    """A random model of some thousand parameters, and its processor."""
    bert = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
    }
    sizes = {"patch_size": 8, "pixel_group_size": 4, "pixel_hidden_size": 8, "projection_dim": 16}
    torch.manual_seed(seed)
    config = AceBertConfig(text_config=bert, cls_token_id=2, sep_token_id=3, **sizes, **overrides)
    AceBertModel(config).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    AceBertProcessor(AceBertImageProcessor(patch_size=8, max_num_patches=12), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), seed=0)


@pytest.fixture(scope="module")
def export(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once, by the first of pytest's processes that needs it: tracing takes ten seconds and more."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    with FileLock(shared / "export.lock"):
        if not (shared / "onnx").exists():
            script.main(["--model_name_or_path", str(checkpoint), "--output_dir", str(shared / "onnx")])
    return shared / "onnx"


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> AceBertModel:
    return AceBertModel.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="module")
def processor(export: Path) -> AceBertProcessor:
    """As anyone loads it who has the exported folder alone."""
    return AutoProcessor.from_pretrained(export, trust_remote_code=True)


@pytest.fixture
def exported_before(export: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes the encoders from the export that there is: tracing them takes seconds."""
    monkeypatch.setattr(onnx_export, "export_encoder", lambda part, model, path: shutil.copy(export / path.name, path))
    yield


def vectors(model: Any, inputs: dict[str, Any], part: str) -> torch.Tensor:
    features = model.get_text_features if part == "query" else model.get_product_features
    with torch.inference_mode():
        return torch.as_tensor(features(**inputs).pooler_output)


def batches(processor: AceBertProcessor) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """Batches of one and of several, each shape another than those that the encoders were traced with."""
    both = list(zip(TITLES, PHOTOS, strict=True))
    products = [both, both[:1], both[1:2], both[2:3]]
    found = [("query", processor(text=QUERIES, return_tensors="pt"))]
    found += [("query", processor(text=[query], return_tensors="pt")) for query in QUERIES]
    found += [("product", processor(*map(list, zip(*rows, strict=True)), return_tensors="pt")) for rows in products]
    found.append(("product", processor(["green mug", "j"], side="product", return_tensors="pt")))
    found.append(("product", processor(images=[photo for photo in PHOTOS if photo], return_tensors="pt")))
    return found


def test_float32_gives_the_checkpoints_vectors(export: Path, model: AceBertModel, processor: AceBertProcessor) -> None:
    exported = OnnxAceBertModel(export, "float32")
    for part, inputs in batches(processor):
        torch.testing.assert_close(vectors(exported, inputs, part), vectors(model, inputs, part), atol=1e-5, rtol=0)


def test_int8_comes_near_and_is_the_default(export: Path, model: AceBertModel, processor: AceBertProcessor) -> None:
    exported = OnnxAceBertModel(export)
    assert exported.precision == "int8"
    for part, inputs in batches(processor):
        given, expected = vectors(exported, inputs, part), vectors(model, inputs, part)
        assert not torch.equal(given, expected)
        assert (given * expected).sum(1).min() > (0.998 if part == "query" else 0.99)
        torch.testing.assert_close(given.norm(dim=1), torch.ones(len(given)))


@pytest.mark.parametrize(("part", "operator"), [("query", "MatMulNBits"), ("product", "MatMulInteger")])
def test_int8_multiplies_in_8_bits_and_keeps_no_large_float_table(export: Path, part: str, operator: str) -> None:
    graph = onnx.load(export / f"{part}_encoder_int8.onnx").graph
    matrices = [node for node in graph.node if node.op_type == operator]
    assert len(matrices) >= 6
    for node in matrices if part == "query" else ():
        settings = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert (settings["bits"], settings["accuracy_level"]) == (8, 4)
    floats = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    large = {tensor.name for tensor in floats if np.prod(tensor.dims) >= 16 * 32}
    assert all("_projection" in name or "row_embed" in name or "column_embed" in name for name in large), large


def test_arrays_are_answered_with_arrays(export: Path, model: AceBertModel, processor: AceBertProcessor) -> None:
    arrays = OnnxAceBertModel(export, "float32").get_text_features(**processor(text=QUERIES, return_tensors="np"))
    assert isinstance(arrays.pooler_output, np.ndarray)
    tensors = vectors(model, processor(text=QUERIES, return_tensors="pt"), "query")
    np.testing.assert_allclose(arrays.pooler_output, tensors, atol=1e-5)


def test_what_may_be_left_out_is_filled_in(export: Path, model: AceBertModel, processor: AceBertProcessor) -> None:
    exported = OnnxAceBertModel(export, "float32")
    photos = processor.image_processor([PHOTOS[0]], do_drop_background=False, return_tensors="pt")
    whole = {name: photos[name] for name in ("pixel_values", "spatial_shapes")}
    torch.testing.assert_close(
        exported.get_image_features(**whole).pooler_output, vectors(model, whole, "product"), atol=1e-5, rtol=0
    )
    ids = {"input_ids": processor(text=["red shirt"], return_tensors="pt")["input_ids"]}
    torch.testing.assert_close(vectors(exported, ids, "query"), vectors(model, ids, "query"), atol=1e-5, rtol=0)


SEVERAL = [[PHOTOS[0], PHOTOS[2]], PHOTOS[3], None, (PHOTOS[2], PHOTOS[3], PHOTOS[0]), [PHOTOS[0]]]


@pytest.mark.parametrize("titles", [TITLES[:2] + TITLES[3:] + [None], None])
def test_several_photos_give_the_checkpoints_vectors(titles: Any, tmp_path: Path, processor: AceBertProcessor) -> None:
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 40}
    checkpoint = save_checkpoint(tmp_path / "eye", seed=1, vision_config={**sizes, "patch_size": 8})
    arguments = ["--model_name_or_path", str(checkpoint), "--output_dir", str(tmp_path / "onnx")]
    script.main([*arguments, "--parts", "product", "--quantize", "none"])
    model, exported = AceBertModel.from_pretrained(checkpoint).eval(), OnnxAceBertModel(tmp_path / "onnx")
    photos = SEVERAL if titles else [each for each in SEVERAL if each is not None]
    inputs = processor.process_products(titles, photos, return_tensors="pt")
    expected = vectors(model, inputs, "product")
    torch.testing.assert_close(vectors(exported, inputs, "product"), expected, atol=1e-5, rtol=0)
    arrays = exported.get_product_features(**{name: values.numpy() for name, values in inputs.items()}).pooler_output
    assert isinstance(arrays, np.ndarray)
    np.testing.assert_allclose(arrays, expected, atol=1e-5)


def test_the_first_of_several_photos_counts_in_one_stream(export: Path, processor: AceBertProcessor) -> None:
    exported = OnnxAceBertModel(export, "float32")
    several = processor(images=[SEVERAL[0], SEVERAL[1]], return_tensors="pt")
    first = processor(images=[PHOTOS[0], PHOTOS[3]], return_tensors="pt")
    torch.testing.assert_close(vectors(exported, several, "product"), vectors(exported, first, "product"))


def test_the_record_tells_what_was_exported(export: Path) -> None:
    record = json.loads((export / "export.json").read_text())
    assert (record["parts"], record["precisions"]) == (["query", "product"], ["float32", "int8"])
    assert len(record["parity"]) == 4
    for row in record["parity"]:
        assert row["cosine"] > (0.9999 if row["precision"] == "float32" else 0.99)
    with pytest.raises((OSError, ValueError)):
        AutoModel.from_pretrained(export, trust_remote_code=True)


def test_a_catalogue_takes_the_export_of_its_model(
    export: Path, model: AceBertModel, processor: AceBertProcessor, catalog_folder: Path, tmp_path: Path
) -> None:
    products = load_dataset(str(catalog_folder), split="validation")
    ProductCatalog.build(model, processor, products, tmp_path / "catalog", index="memory", sides=False).close()
    exported = OnnxAceBertModel(export, "float32")
    found = []
    for one in (model, exported):
        with_this = ProductCatalog.load(tmp_path / "catalog", one, processor, read_only=True)
        found.append([(hit.id, round(hit.score, 3)) for hit in with_this.search("red shirt", top_k=5)])
        with_this.close()
    assert found[0] == found[1]
    exported.source_product_weights_sha256 = "of another checkpoint"
    with pytest.raises(ValueError, match="did not make the catalogue"):
        ProductCatalog.load(tmp_path / "catalog", exported, processor, read_only=True)


def test_recall_is_measured_against_the_checkpoints_own(
    export: Path, model: AceBertModel, processor: AceBertProcessor, catalog_folder: Path, tmp_path: Path
) -> None:
    tasks = load_tasks(str(catalog_folder), ["validation"], ("id", "title", "image"), ["{colour} {kind}"], 20)
    assert [task.name for task in tasks] == ["titles", "short queries"]
    catalog = tasks[1].corpus
    for query, relevant in zip(tasks[1].queries, tasks[1].relevance, strict=True):
        for row, product in enumerate(catalog.ids):
            has = all(
                word in (catalog.attributes["colour"][row], catalog.attributes["kind"][row]) for word in query.split()
            )
            assert has == (product in relevant)
    exported = {precision: OnnxAceBertModel(export, precision) for precision in ("float32", "int8")}
    results = measure_recall(tasks, model, exported, processor, batch_size=5)
    assert len(results) == 2 * 7
    assert (results[0]["queries_by"], results[0]["products_by"]) == ("checkpoint", "checkpoint")
    for row in results:
        assert 0 < row["recall_cap@10"] <= 1
        if "int8" not in (row["queries_by"], row["products_by"]):
            assert row["share_of_checkpoint"] == row["same_top10"] == 1
    assert recall_markdown(results).count("\n") == len(results) + 1

    other = AceBertModel.from_pretrained(save_checkpoint(tmp_path, seed=1)).eval()
    strange = measure_recall(tasks, other, {"float32": exported["float32"]}, processor, batch_size=5)
    assert min(row["same_top10"] for row in strange) < 0.9


@pytest.mark.parametrize("damage", ["weight", "nan"])
def test_a_wrong_export_is_not_left_behind(
    exported_before: None, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    def spoil(part: str, source: Path, target: Path) -> None:
        spoilt = onnx.load(source)
        (weight,) = (tensor for tensor in spoilt.graph.initializer if tensor.name.endswith("query_projection.weight"))
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0] = np.nan if damage == "nan" else -values[0]
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(spoilt, target)

    monkeypatch.setattr(onnx_export, "quantize_encoder", spoil)
    arguments = ["--model_name_or_path", str(checkpoint), "--output_dir", str(tmp_path / "onnx"), "--parts", "query"]
    with pytest.raises(ValueError, match="query encoder in int8 is not the checkpoint's"):
        script.main(arguments)
    assert list(tmp_path.iterdir()) == []


def test_one_part_without_int8(exported_before: None, checkpoint: Path, tmp_path: Path, processor: Any) -> None:
    folder = tmp_path / "deep" / "onnx"
    arguments = ["--model_name_or_path", str(checkpoint), "--output_dir", str(folder)]
    script.main([*arguments, "--parts", "query", "--quantize", "none"])
    assert [path.name for path in folder.glob("*.onnx")] == ["query_encoder.onnx"]
    exported = OnnxAceBertModel(folder)
    assert exported.precision == "float32"
    with pytest.raises(ValueError, match="has no product encoder"):
        exported.get_image_features(**processor(images=PHOTOS[:1], return_tensors="pt"))
    with pytest.raises(ValueError, match="--quantize int8"):
        OnnxAceBertModel(folder, "int8")

    with pytest.raises(FileExistsError, match="--overwrite_output_dir"):
        script.main(arguments)
    script.main([*arguments, "--parts", "query", "--overwrite_output_dir"])
    assert OnnxAceBertModel(folder).precision == "int8"


def test_the_command_measures_recall_and_keeps_it(
    exported_before: None, checkpoint: Path, catalog_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["--model_name_or_path", str(checkpoint), "--output_dir", str(tmp_path / "onnx"), "--quantize", "none"]
    catalog = ["--dataset_name", str(catalog_folder), "--query_templates", "{colour} {kind}"]
    record = script.main([*arguments, *catalog])
    assert json.loads((tmp_path / "onnx" / "export.json").read_text()) == record
    assert len(record["recall"]) == 2 * 4
    assert "| float32 | checkpoint | 16 titles, 16 products |" in capsys.readouterr().out


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("the only copy")
    with pytest.raises(FileExistsError, match="holds no export"):
        script.main(["--output_dir", str(tmp_path), "--overwrite_output_dir"])
    assert (tmp_path / "thesis.txt").exists()


def test_bad_input_is_named(export: Path, tmp_path: Path, processor: AceBertProcessor) -> None:
    with pytest.raises(ValueError, match=r"holds no export\.json"):
        OnnxAceBertModel(tmp_path)
    with pytest.raises(ValueError, match="precision"):
        OnnxAceBertModel(export, "int4")
    exported = OnnxAceBertModel(export)
    with pytest.raises(ValueError, match="input_ids"):
        exported.get_product_features()
    photos = processor(images=PHOTOS[:1], return_tensors="pt")
    with pytest.raises(ValueError, match="spatial_shapes"):
        exported.get_product_features(pixel_values=photos["pixel_values"])


@pytest.mark.slow
def test_a_shared_encoder_is_exported_for_both_sides(tmp_path: Path, processor: AceBertProcessor) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", seed=2, share_encoders=True)
    script.main(["--model_name_or_path", str(checkpoint), "--output_dir", str(tmp_path / "onnx"), "--quantize", "none"])
    model, exported = AceBertModel.from_pretrained(checkpoint).eval(), OnnxAceBertModel(tmp_path / "onnx")
    for part, inputs in batches(processor):
        torch.testing.assert_close(vectors(exported, inputs, part), vectors(model, inputs, part), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_beside_an_image_encoder_titles_are_quantised_in_blocks(tmp_path: Path, processor: AceBertProcessor) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    vision = AceBertVisionConfig(**sizes, patch_size=8, position_grid_size=4, initializer_range=0.2)
    checkpoint = save_checkpoint(tmp_path / "checkpoint", seed=3, vision_config=vision)
    script.main(["--model_name_or_path", str(checkpoint), "--output_dir", str(tmp_path / "onnx")])
    model, exported = AceBertModel.from_pretrained(checkpoint).eval(), OnnxAceBertModel(tmp_path / "onnx")
    for part, inputs in batches(processor):
        assert (vectors(exported, inputs, part) * vectors(model, inputs, part)).sum(1).min() > 0.99
    graph = onnx.load(tmp_path / "onnx" / "product_encoder_int8.onnx").graph
    operators = Counter(node.op_type for node in graph.node)
    assert operators["MatMulNBits"] == 6  # of BERT's one layer
    assert operators["MatMulInteger"] >= 1 + 2 * 4  # the patches, and both layers of the image encoder


@pytest.mark.slow
def test_the_released_checkpoint_keeps_its_ranking_in_8_bits(tmp_path: Path) -> None:
    """How near single vectors come depends on the checkpoint; that what is found stays the same must hold for each."""
    sample = write_sample_catalog(tmp_path / "sample", num_products=1000)
    arguments = ["--model_name_or_path", str(ROOT), "--output_dir", str(tmp_path / "onnx")]
    catalog = ["--dataset_name", str(sample), "--title_column", "productDisplayName"]
    templates = ["--query_templates", "{gender} {baseColour} {articleType}", "{usage} {articleType}", "{subCategory}"]
    record = script.main([*arguments, *catalog, *templates])
    assert len(record["recall"]) == 2 * 7
    for row in record["recall"]:
        in_8_bits = "int8" in (row["queries_by"], row["products_by"])
        assert row["share_of_checkpoint"] > (0.98 if in_8_bits else 0.9999), row
        assert row["same_top10"] > (0.9 if in_8_bits else 0.9999), row
    size = (tmp_path / "onnx" / "query_encoder_int8.onnx").stat().st_size
    assert size < 0.3 * (tmp_path / "onnx" / "query_encoder.onnx").stat().st_size
