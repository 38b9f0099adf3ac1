"""The stage that trains the query encoder alone: what it asks, what answers, its loss, and the run."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from helpers import draw, read_log, read_weights, unit_vectors, without_times

from acebert import train_accelerate as script
from acebert.data_acebert import Columns, QueryTemplates, hash_text
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.processing_acebert import AceBertProcessor
from acebert.queries_acebert import SIDES, ProductQueries, QueryCollator, RankedProducts, answer_loss

FROZEN = {"backbone": None, "patch_size": None, "max_num_patches": None, "projection_dim": None}


def make_data(**changes: Any) -> ProductQueries:
    """97 red shirts and one each of three other kinds; all have both title and photo but the last, a title alone."""
    kinds = ["shirt"] * 97 + ["shoe", "bag", "mug"]
    rows = [
        {"id": i, "title": f"{kind} {i}", "kind": kind, "colour": None if kind == "mug" else "red"}
        for i, kind in enumerate(kinds)
    ]
    photos = [None if row["kind"] == "mug" else draw(row["kind"], "red", 0) for row in rows]
    products = Dataset.from_list(rows).add_column(
        "image", [photo and {"bytes": b"x", "path": None} for photo in photos]
    )
    columns = Columns(attributes=["colour", "kind"])
    templates = QueryTemplates(["{colour} {kind}", "{kind}", "big {kind}"])
    return ProductQueries(products, columns, templates, **changes)


def test_balanced_queries_ask_for_rare_values_as_often_as_for_common_ones() -> None:
    data = make_data(title_query_probability=0.0, balanced_query_probability=1.0)
    items = [data[i % 100] for i in range(400)] + [
        item for data.epoch in range(1, 4) for item in map(data.__getitem__, range(100))
    ]
    kinds = Counter(kind for item in items for kind in ("shirt", "shoe", "bag", "mug") if kind in item["query"].split())
    assert min(kinds.values()) > 0.4 * max(kinds.values())  # no colour is known of the mug
    for item in items:
        # The row that comes with a query has what it asks for, and nothing else is asked.
        asked, has = item["query_attributes"], item["product_attributes"]
        assert ((asked < 0) | (asked == has)).all() and (asked >= 0).any() and "big" not in item["query"]
        assert len(item["query"].split()) == (asked >= 0).sum()
    data.balanced_query_probability = 0.0
    items = [data[i] for i in range(100)]
    assert [item["row"] for item in items] == list(range(100))
    assert sum("shirt" in item["query"] for item in items) > 80


def test_titles_rank_photos_and_products_without_one_side_are_whole() -> None:
    data = make_data(title_query_probability=0.7, drop_title_probability=0.3, drop_image_probability=0.3)
    items = [item for data.epoch in range(5) for item in map(data.__getitem__, range(100))]
    assert {SIDES[item["sides"]] for item in items} == set(SIDES)
    assert np.mean([item["from_title"] for item in items if item["row"] != 99]) == pytest.approx(0.7, abs=0.06)
    assert all(SIDES[item["sides"]] == ("image",) for item in items if item["from_title"])
    assert {item["sides"] for item in items if item["row"] == 99} == {0}


def test_chunks_rank_the_same_sides(tiny_processor: AceBertProcessor) -> None:
    data = make_data(drop_title_probability=0.3, drop_image_probability=0.3)
    items = [data[i] for i in range(40)]
    chunks = QueryCollator(tiny_processor, chunk_size=8)(items)["chunks"]
    assert all(len(chunk["sides"].unique()) == 1 and len(chunk["sides"]) <= 8 for chunk in chunks)
    assert Counter(torch.cat([chunk["query_id"] for chunk in chunks]).tolist()) == Counter(
        item["query_id"] for item in items
    )
    for chunk in chunks:  # no column that is padding in every row
        assert chunk["query_attention_mask"].sum(1).max() == chunk["query_input_ids"].shape[1]


def make_ranked() -> RankedProducts:
    vectors, rows = unit_vectors(3, 4), torch.arange(3)
    return RankedProducts(
        vectors=[vectors, vectors[:2], vectors[2:]],
        rows=[rows, rows[:2], rows[2:]],
        product_ids=torch.tensor([0, 0, 2]),
        texts=torch.tensor([[hash_text("one"), -1, 7], [hash_text("two"), 7, -1], [hash_text("one"), -1, -1]]),
        attributes=torch.tensor([[10, 20], [10, 21], [11, -1]]),
    )


@pytest.mark.parametrize(
    ("product_id", "query", "asked", "answers"),
    [
        (0, "none", [-1, -1], [True, True, False]),  # rows of one product
        (5, "One ", [-1, -1], [True, False, True]),  # the same title, letter case and spacing aside
        (5, "none", [10, -1], [True, True, False]),  # one attribute
        (5, "none", [10, 21], [False, True, False]),  # both
        (2, "none", [10, 20], [True, False, True]),  # its own product, though it lacks one
    ],
)
def test_what_answers(product_id: int, query: str, asked: list[int], answers: list[bool]) -> None:
    chunk = {
        "product_id": torch.tensor([product_id]),
        "query_id": torch.tensor([hash_text(query)]),
        "query_attributes": torch.tensor([asked]),
        "sides": torch.tensor([0]),
    }
    ranked = make_ranked()
    vectors, found = ranked.ranked_for(chunk)
    assert torch.equal(vectors, ranked.vectors[0]) and found.tolist() == [answers]
    chunk["sides"] = torch.tensor([2])  # the last product alone shows a photo
    assert ranked.ranked_for(chunk)[1].tolist() == [answers[2:]]
    # Behind three others, the same products are numbers 3 to 5; their texts and attributes are theirs still.
    other = make_ranked()
    other.texts += 1000
    other.attributes += 1000
    both = other.join(ranked)
    chunk["sides"] = torch.tensor([0])
    assert both.ranked_for(chunk, offset=3)[1].tolist() == [[False] * 3 + answers]


def test_the_loss() -> None:
    queries, products = unit_vectors(5, 8), unit_vectors(9, 8)
    own = torch.eye(5, 9, dtype=torch.bool)
    logits = 7.0 * queries @ products.t()
    one_way = torch.nn.functional.cross_entropy(logits, torch.arange(5))
    torch.testing.assert_close(answer_loss(queries, products, own, 7.0), one_way)
    assert answer_loss(queries, products, torch.ones(5, 9, dtype=torch.bool), 7.0) == pytest.approx(0, abs=1e-6)
    some = own | (torch.arange(9) > 6)
    expected = -(logits.softmax(1) * some).sum(1).log().mean()
    torch.testing.assert_close(answer_loss(queries, products, some, 7.0), expected)


@pytest.fixture
def frozen(flags: Callable[..., list[str]], tmp_path: Path) -> Callable[..., list[str]]:
    """Flags of a run of this stage, from a model that is fine-tuned for thirty steps."""
    script.main([*flags(output="start", max_train_steps=30, eval_steps=30), "--learning_rate", "1e-3"])

    def make(output: str = "run", **changes: object) -> list[str]:
        start = {"model_name_or_path": tmp_path / "start", "learning_rate": 3e-3, "head_learning_rate": 3e-3}
        return flags("queries", output, **FROZEN, **{**start, **changes})

    return make


def test_the_product_side_stays(frozen: Callable[..., list[str]], tmp_path: Path) -> None:
    easy = {"title_query_probability": 0.1, "drop_title_probability": 0, "dropout": 0, "attention_dropout": 0}
    metrics = script.main(frozen(seed=5, max_train_steps=60, eval_steps=60, logging_steps=20, **easy))
    assert {"title_to_image_recall@10", "query_to_product_recall@10", "modality_gap", "score"} == set(metrics)
    before, after = read_weights(tmp_path / "start"), read_weights(tmp_path / "run")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith(("acebert.query_encoder.", "acebert.query_projection.")) for name in changed)
    entries = [entry for entry in read_log(tmp_path / "run") if "loss" in entry]
    assert entries[-1]["loss"] < 0.9 * entries[0]["loss"]
    assert entries[-1]["precision@1"] > entries[0]["precision@1"]


def test_a_resumed_run_ends_with_the_same_bits_and_encodes_nothing_again(
    frozen: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = frozen(checkpoints_total_limit=9, ema_decay=0.9)
    script.main(arguments)
    whole, entries = read_weights(tmp_path / "run"), read_log(tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "run/checkpoints/products/train")) == [
        "image.safetensors",
        "title-image.safetensors",
        "title.safetensors",
    ]
    for step in (4, 6):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step_{step}")
    monkeypatch.setattr(script, "encode_whole", lambda *_: pytest.fail("encoded again"))
    script.main(arguments)
    resumed = read_weights(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert without_times(read_log(tmp_path / "run")) == without_times(entries)


def test_validation_products_are_ranked_but_not_trained_against(
    frozen: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {"train": set(), "validation": set()}
    ranked_for = RankedProducts.ranked_for

    def spy(self: RankedProducts, chunk: dict[str, torch.Tensor], offset: int = 0) -> Any:
        vectors, answers = ranked_for(self, chunk, offset)
        assert answers.any(1).all()
        seen["train" if torch.is_grad_enabled() else "validation"].add(len(self.product_ids))
        return vectors, answers

    monkeypatch.setattr(RankedProducts, "ranked_for", spy)
    script.main(frozen(max_train_steps=2, eval_steps=1))
    assert seen == {"train": {64}, "validation": {64 + 16}}


def test_a_chunk_makes_no_difference(frozen: Callable[..., list[str]], tmp_path: Path) -> None:
    common = {"max_train_steps": 1, "eval_steps": 1, "dropout": 0, "attention_dropout": 0}
    weights = []
    for size in (2, 16):
        script.main(frozen(output=f"chunks-of-{size}", chunk_size=size, **common))
        weights.append(read_weights(tmp_path / f"chunks-of-{size}"))
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hard_negatives": 2}, "--hard_negatives: the stage 'queries' leaves the product side as it is"),
        ({"adversarial_strength": 0.0}, "--adversarial_strength: the stage 'queries' leaves"),
        ({"balanced_query_probability": 1.5}, "--balanced_query_probability must lie in [0, 1], got 1.5"),
        ({"stage": "finetune", "balanced_query_probability": 0.5}, "is of the stage 'queries', not of 'finetune'"),
        ({"model_name_or_path": None, "backbone": "b"}, "give --model_name_or_path, not --backbone"),
    ],
)
def test_bad_settings(
    changes: dict[str, Any], message: str, flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.parse_arguments(flags(**{"stage": "queries", "model_name_or_path": "m", **FROZEN, **changes}))
    assert message in capsys.readouterr().err


def test_shared_encoders_are_refused(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    script.main(flags(output="shared", share_encoders="true", max_train_steps=1, eval_steps=1))
    with pytest.raises(SystemExit, match="shares its encoders"):
        script.main(flags("queries", **FROZEN, model_name_or_path=tmp_path / "shared"))


def test_products_may_come_as_vectors(
    tiny_config: Callable[..., Any], query_inputs: dict[str, torch.Tensor], product_inputs: dict[str, torch.Tensor]
) -> None:
    model = AceBertForRetrieval(tiny_config()).eval()
    queries = {f"query_{name}": value for name, value in query_inputs.items()}
    whole = model(**queries, **product_inputs, return_loss=False)
    again = model(**queries, product_embeds=whole.product_embeds, return_loss=False)
    assert torch.equal(whole.logits_per_query, again.logits_per_query) and again.product_model_output is None
    with pytest.raises(ValueError, match="Give `product_embeds` or the products'"):
        model(**queries, **product_inputs, product_embeds=whole.product_embeds)
