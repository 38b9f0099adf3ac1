"""Alignment, the anchor to the text backbone, and what an image backbone adds to training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from datasets import Dataset, Features, Image, Value
from helpers import WORDS, product_rows, read_log, read_weights, without_times
from transformers import BertConfig, BertModel, BertTokenizer, Dinov2Config, Dinov2Model

import acebert
from acebert import train_accelerate as script
from acebert.data.pairs import PairDataset
from acebert.modeling_acebert import AceBertModel
from acebert.training.command_line import parse_arguments
from acebert.training.stages.align import Alignment
from acebert.training.teacher import TextTeacher

CONFIGS = Path(acebert.__file__).parent / "configs"
NEW = {"patch_size": None, "projection_dim": None}
WIDTH = 32  # of the text backbone


@pytest.fixture(scope="session")
def image_backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a DINOv2 of three narrow layers."""
    folder = str(tmp_path_factory.mktemp("image_backbone"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 3, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(**sizes, patch_size=8, image_size=32)).save_pretrained(folder)
    return folder


@pytest.fixture
def align(flags: Callable[..., list[str]], image_backbone: str) -> Callable[..., list[str]]:
    def make(**changes: object) -> list[str]:
        new = {
            **NEW,
            "projection_dim": WIDTH,
            "image_backbone": image_backbone,
            "share_encoders": True,
            "dropout": 0,
            "attention_dropout": 0,
        }
        return flags("align", "aligned", **{**new, "query_templates": None, **changes})

    return make


def test_align_then_finetune(align: Callable[..., list[str]], flags: Callable[..., list[str]], tmp_path: Path) -> None:
    metrics = script.main(align(patch_budgets=[4, 12], drop_patch_probability=0.25, downscale_probability=0.5))
    assert set(metrics) == {"title_to_image_recall@10", "score", "modality_gap", "knowledge_kept"}
    aligned = AceBertModel.from_pretrained(tmp_path / "aligned")
    assert aligned.query_encoder is None and aligned.config.vision_config.num_hidden_layers == 3
    assert not {"domain_loss", "domain_accuracy", "adversarial_strength"} & set(read_log(tmp_path / "aligned")[0])

    start = {"backbone": None, "model_name_or_path": tmp_path / "aligned", **NEW, "max_num_patches": None}
    script.main(flags(**start, split_encoders=True, max_train_steps=1, learning_rate=0, query_learning_rate=0))
    tuned = AceBertModel.from_pretrained(tmp_path / "run")
    assert tuned.query_encoder is not None and not tuned.config.share_encoders
    # At a rate of 0, what queries got of their own is what they shared before.
    for name, weight in tuned.query_encoder.named_parameters():
        torch.testing.assert_close(weight, aligned.get_parameter(f"product_encoder.bert.{name}"))


def test_a_row_needs_both_title_and_photo(align: Callable[..., list[str]], tmp_path: Path) -> None:
    rows = product_rows(40)
    rows[3]["image"], rows[5]["title"] = None, None
    features = Features({"id": Value("int64"), "title": Value("string"), "image": Image()})
    shop = Dataset.from_list([{name: row[name] for name in features} for row in rows], features=features)
    shop.to_parquet(tmp_path / "shop.parquet")
    source = {"dataset_name": tmp_path / "shop.parquet", "validation_split": None, "validation_share": 0}
    script.main(align(**source, on_bad_row="skip", max_train_steps=2))
    left_out = [json.loads(line) for line in (tmp_path / "aligned/bad_rows_train.jsonl").read_text().splitlines()]
    assert [row["row"] for row in left_out] == [3, 5]


def test_a_frozen_image_encoder_reads_each_photo_once(
    align: Callable[..., list[str]], flags: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.main(align(max_train_steps=1))
    start = {"backbone": None, "model_name_or_path": tmp_path / "aligned", **NEW, "max_num_patches": None}
    changes = {"split_encoders": True, "mine_hard_negatives_every": 1, "hard_negatives": 1, "dataloader_num_workers": 0}
    opened: list[object] = []
    monkeypatch.setattr(PairDataset, "photo", count_photos(PairDataset.photo, opened))
    script.main(flags(**start, **changes, freeze_image_encoder=True))
    assert opened and all(isinstance(photo, torch.Tensor | None) for photo in opened)
    before, after = read_weights(tmp_path / "aligned"), read_weights(tmp_path / "run")
    eye = [name for name in before if "image_" in name]
    assert eye and all(torch.equal(before[name], after[name]) for name in eye)
    title = [name for name in before if "product_encoder." in name and "attention" in name and "weight" in name]
    assert title and not any(torch.equal(before[name], after[name]) for name in title)


def count_photos(photo: Callable[..., object], opened: list[object]) -> Callable[..., object]:
    def opening(self: PairDataset, *args: object) -> object:
        opened.append(photo(self, *args))
        return opened[-1]

    return opening


def test_what_the_photos_were_encoded_to_is_what_the_model_gives(
    align: Callable[..., list[str]], tmp_path: Path
) -> None:
    """A step with vectors made before has the loss of one with photos."""
    script.main(align(max_train_steps=1))
    start = {"model_name_or_path": str(tmp_path / "aligned"), "backbone": None, "image_backbone": None, **NEW}
    start |= {"share_encoders": None, "dropout": None, "attention_dropout": None, "max_num_patches": None}
    losses = []
    for frozen in (False, True):
        folder = tmp_path / f"frozen{frozen}"
        script.main(align(**start, output_dir=folder, freeze_image_encoder=frozen, flip_probability=0))
        losses.append(read_log(folder)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_titles_alone_are_not_asked_for_photos_that_stay(
    align: Callable[..., list[str]], flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    script.main(align(max_train_steps=1))
    start = {"backbone": None, "model_name_or_path": tmp_path / "aligned", **NEW, "max_num_patches": None}
    titles = {**start, "freeze_image_encoder": True, "query_templates": None, "max_train_steps": 1}
    with pytest.raises(SystemExit, match="A model of --stage align is complete"):
        script.main(flags(**titles))
    script.main(flags(**titles, title_query_probability=1))


def test_a_model_without_an_image_encoder_has_none_to_freeze(flags: Callable[..., list[str]]) -> None:
    with pytest.raises(SystemExit, match="--freeze_image_encoder needs a model with a pre-trained image encoder"):
        script.main(flags(freeze_image_encoder=True))


def test_what_does_not_go_with_the_checkpoint_is_told(
    align: Callable[..., list[str]],
    flags: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        script.main(flags(split_encoders=True))
    assert "--split_encoders is for a checkpoint" in capsys.readouterr().err
    script.main(align(max_train_steps=1))
    start = {"backbone": None, "model_name_or_path": tmp_path / "aligned", **NEW, "max_num_patches": None}
    script.main(flags(**start, split_encoders=True, max_train_steps=1))
    assert "Texts are not anchored, and may lose words" in capsys.readouterr().out
    again = {**start, "model_name_or_path": tmp_path / "run", "output_dir": tmp_path / "again"}
    with pytest.raises(SystemExit, match="have an encoder of their own: leave --split_encoders out"):
        script.main(flags(**again, split_encoders=True))


def test_a_query_encoder_of_its_own_is_not_aligned(
    flags: Callable[..., list[str]], align: Callable[..., list[str]]
) -> None:
    with pytest.raises(SystemExit, match="query encoder of its own"):
        script.main(align(share_encoders=False))


def test_an_aligned_run_resumes_to_the_same_bits(align: Callable[..., list[str]], tmp_path: Path) -> None:
    """Open texts, patch budgets and shrunk photos are drawn by epoch and rows, not by the process's past."""
    drawn = {"patch_budgets": [4, 12], "drop_patch_probability": 0.25, "downscale_probability": 0.5}
    arguments = align(**drawn, checkpoints_total_limit=9)
    script.main(arguments)
    whole, entries = read_weights(tmp_path / "aligned"), read_log(tmp_path / "aligned")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "aligned" / "checkpoints" / f"step_{step}")
    script.main(arguments)
    resumed = read_weights(tmp_path / "aligned")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert without_times(read_log(tmp_path / "aligned")) == without_times(entries)


def test_the_anchor_starts_at_zero_and_keeps_texts_near_the_backbone(
    align: Callable[..., list[str]], backbone: str, tmp_path: Path
) -> None:
    moved = {}
    for weight in (0, 20):
        folder = tmp_path / f"weight{weight}"
        script.main(align(output_dir=folder, anchor_weight=weight, learning_rate=1e-2, max_train_steps=8, eval_steps=8))
        model = AceBertModel.from_pretrained(folder).eval()
        teacher = TextTeacher(backbone, torch.device("cpu"))
        inputs = BertTokenizer.from_pretrained(folder)(["red shirt", "blue"], padding=True, return_tensors="pt")
        with torch.no_grad():
            vectors = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
        moved[weight] = 1 - float((vectors * teacher(["red shirt", "blue"])).sum(1).mean())
    anchored = [entry["anchor_loss"] for entry in read_log(tmp_path / "weight20") if "anchor_loss" in entry]
    assert anchored[0] == pytest.approx(0, abs=1e-5)
    assert not any("anchor_loss" in entry for entry in read_log(tmp_path / "weight0"))
    assert moved[20] < 0.5 * moved[0]


def test_a_teacher_that_is_not_there_is_an_error(align: Callable[..., list[str]], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"teacher '.*nowhere' can't be loaded .*--text_teacher none"):
        script.main(align(text_teacher=tmp_path / "nowhere"))


def test_a_teacher_of_another_width_is_an_error(align: Callable[..., list[str]], tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(tmp_path / "narrow")
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(tmp_path / "narrow")
    with pytest.raises(SystemExit, match="vectors of 16 numbers"):
        script.main(align(text_teacher=tmp_path / "narrow"))


def test_rates_fall_from_layer_to_layer_and_frozen_ones_stay(align: Callable[..., list[str]]) -> None:
    flags = align(image_encoder_learning_rate=0.1, image_layer_decay=0.5, freeze_image_layers=1, head_learning_rate=0.3)
    stage = Alignment(parse_arguments(flags), Accelerator(cpu=True))
    stage.teacher = None
    model = stage.load_model()
    rates = stage.learning_rates()

    def rate(name: str) -> float:
        return next(value for part, value in rates.items() if part in name)

    layer = "acebert.image_encoder.layers.{}.fc1.weight"
    assert [rate(layer.format(i)) for i in range(3)] == pytest.approx([0.1 / 8, 0.1 / 4, 0.1 / 2])
    assert rate("acebert.image_encoder.embeddings.patch_embedding.weight") == pytest.approx(0.1 / 16)
    assert rate("acebert.image_encoder.norm.weight") == pytest.approx(0.1)
    assert rate("acebert.image_projection.0.weight") == pytest.approx(0.3)
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert not trained[layer.format(0)] and trained[layer.format(1)]
    assert not trained["acebert.image_encoder.embeddings.patch_embedding.weight"]


@pytest.mark.parametrize("name", ["pretrain", "align", "finetune", "finetune_aligned", "query_side"])
def test_the_projects_configurations_are_flags_of_their_stage(name: str) -> None:
    file = CONFIGS / f"{name}.yaml"
    args = parse_arguments(["--config", str(file)])
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    given = {
        key: value if key != "dataset_name" or isinstance(value, list) else [value] for key, value in settings.items()
    }
    assert {key: getattr(args, key) for key in given} == given
