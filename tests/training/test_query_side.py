"""The stage that trains the query encoder alone: what it asks, what answers, its loss, and the run."""

import io
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import Dataset, Features, Image, Value
from helpers import FROM_CHECKPOINT, draw, read_log, read_weights, unit_vectors, without_times
from safetensors.torch import load_file, save_file

from acebert import train_accelerate as script
from acebert.commands import find_learning_rate
from acebert.data.collators import QueryCollator
from acebert.data.columns import Columns
from acebert.data.grouping import hash_text
from acebert.data.pairs import MODALITIES, QueryDataset
from acebert.data.query_templates import QueryTemplates
from acebert.encoding.corpus_encoder import CorpusEncoder
from acebert.losses_acebert import answer_loss, matryoshka_answer_loss
from acebert.modeling_acebert import AceBertForRetrieval, AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.training.catalog_negatives import CatalogNegatives
from acebert.training.stages.query_side import QuerySideFinetuning


def make_data(**changes: Any) -> QueryDataset:
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
    return QueryDataset(products, columns, templates, **changes)


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
        assert ((asked < 0) | (asked == has)).all() and (asked >= 0).any()
        assert len(item["query"].removeprefix("big ").split()) == (asked >= 0).sum()
    data.balanced_query_probability = 0.0
    items = [data[i] for i in range(100)]
    assert [item["row"] for item in items] == list(range(100))
    assert sum("shirt" in item["query"] for item in items) > 80


def test_titles_rank_photos_and_products_without_one_side_are_whole() -> None:
    data = make_data(title_query_probability=0.7, drop_title_probability=0.3, drop_image_probability=0.3)
    items = [item for data.epoch in range(5) for item in map(data.__getitem__, range(100))]
    assert {MODALITIES[item["modalities"]] for item in items} == set(MODALITIES)
    assert np.mean([item["from_title"] for item in items if item["row"] != 99]) == pytest.approx(0.7, abs=0.06)
    assert all(MODALITIES[item["modalities"]] == ("image",) for item in items if item["from_title"])
    assert {item["modalities"] for item in items if item["row"] == 99} == {0}


def test_chunks_rank_the_same_sides(tiny_processor: AceBertProcessor) -> None:
    data = make_data(drop_title_probability=0.3, drop_image_probability=0.3)
    items = [data[i] for i in range(40)]
    chunks = QueryCollator(tiny_processor, chunk_size=8)(items)["chunks"]
    assert all(len(chunk["modalities"].unique()) == 1 and len(chunk["modalities"]) <= 8 for chunk in chunks)
    assert Counter(torch.cat([chunk["query_id"] for chunk in chunks]).tolist()) == Counter(
        item["query_id"] for item in items
    )
    for chunk in chunks:  # no column that is padding in every row
        assert chunk["query_attention_mask"].sum(1).max() == chunk["query_input_ids"].shape[1]


def test_the_data_go_to_processes_that_are_started_anew() -> None:
    data = make_data(title_query_probability=0.3, balanced_query_probability=0.5)
    assert [data[row] for row in range(20)] and pickle.dumps(data)  # also after what it keeps by the first draws


def test_a_row_that_cannot_be_learned_from_is_named_by_what_was_drawn() -> None:
    data = make_data(title_query_probability=0.0, balanced_query_probability=1.0)
    assert [data.id_of(row) for row in range(100)] == [data[row]["id"] for row in range(100)]
    assert data.id_of(0) != data.ids[0]


def test_a_product_that_shows_nothing_is_found_at_the_start() -> None:
    rows = [{"id": 1, "title": "shoe", "asked": "red"}, {"id": 2, "title": " ", "asked": "bag"}]
    with pytest.raises(ValueError, match=r"Product 2 \(row 1\) has neither a title nor a photo"):
        QueryDataset(Dataset.from_list(rows), Columns(query="asked"))


def make_ranked() -> CatalogNegatives:
    """Three products in groups 0, 0 and 2; the last alone shows a photo."""
    vectors, rows = unit_vectors(3, 4), torch.arange(3)
    return CatalogNegatives(
        vectors=[[vectors], [vectors[:2]], [vectors[2:]]],
        rows=[rows, rows[:2], rows[2:]],
        groups=torch.tensor([0, 0, 2]),
        answering={hash_text("one"): {0, 2}, hash_text("two"): {0}},
        attributes=torch.tensor([[10, 20], [10, 21], [11, -1]]),
        num_groups=3,
    )


@pytest.mark.parametrize(
    ("product_id", "query", "asked", "answers"),
    [
        (0, "none", [-1, -1], [True, True, False]),  # products of one group
        (1, "One ", [-1, -1], [True, True, True]),  # the same title, letter case and spacing aside
        (1, "two", [-1, -1], [True, True, False]),
        (1, "none", [10, -1], [True, True, False]),  # one attribute
        (1, "none", [10, 21], [False, True, False]),  # both
        (2, "none", [10, 20], [True, False, True]),  # its own product, though it lacks one
    ],
)
def test_what_answers(product_id: int, query: str, asked: list[int], answers: list[bool]) -> None:
    chunk = {
        "product_id": torch.tensor([product_id]),
        "query_id": torch.tensor([hash_text(query)]),
        "query_attributes": torch.tensor([asked]),
        "modalities": torch.tensor([0]),
    }
    ranked = make_ranked()
    vectors, found = ranked.ranked_for(chunk)
    assert torch.equal(vectors[0], ranked.vectors[0][0]) and found.tolist() == [answers]
    chunk["modalities"] = torch.tensor([2])
    assert ranked.ranked_for(chunk)[1].tolist() == [answers[2:]]
    # Behind another catalogue, the queries are this one's still; equal words are answered by both.
    other = make_ranked()
    other.answering = {hash_text("two"): {2}}
    other.attributes += 1000
    both = other.join(ranked)
    chunk["modalities"] = torch.tensor([0])
    assert both.ranked_for(chunk)[1].tolist() == [[False, False, query == "two", *answers]]


def test_rows_of_one_product_are_ranked_once_and_answer_together(
    tiny_config: Callable[..., Any], tiny_processor: AceBertProcessor, tmp_path: Path
) -> None:
    """A log of queries: its first row lacks the photo, and B was found by the same words as A."""
    tiny_model = AceBertModel(tiny_config(matryoshka_dims=[4])).eval()
    file = io.BytesIO()
    draw("shoe", "red", 0).save(file, "PNG")
    photo = {"bytes": file.getvalue(), "path": None}
    rows = [
        {"id": "A", "title": "shoe", "asked": "other", "image": None},
        {"id": "A", "title": "shoe", "asked": "red", "image": photo},
        {"id": "B", "title": "bag", "asked": "red", "image": photo},
        {"id": "A", "title": "shoe", "asked": None, "image": photo},
    ]
    features = Features({**dict.fromkeys(("id", "title", "asked"), Value("string")), "image": Image(decode=False)})
    data = QueryDataset(Dataset.from_list(rows, features=features), Columns(query="asked"), title_query_probability=0)
    encoder = CorpusEncoder(tiny_model, tiny_processor, Accelerator(cpu=True), tmp_path, "tiny")
    ranked = CatalogNegatives.encode(data, encoder, "log")
    assert [len(vectors[0]) for vectors in ranked.vectors] == [2, 2, 2]
    whole = tiny_processor.process_products(["shoe"], [draw("shoe", "red", 0)], return_tensors="pt")
    with torch.inference_mode():
        expected = tiny_model.get_product_features(**whole).pooler_output
    torch.testing.assert_close(ranked.vectors[0][0][:1], expected, atol=1e-5, rtol=0)
    assert [cut.shape[1] for cut in ranked.vectors[0]] == [tiny_model.config.projection_dim, 4]
    (chunk,) = QueryCollator(tiny_processor)([{**data[row], "modalities": 0} for row in range(3)])["chunks"]
    answers = ranked.ranked_for(chunk)[1]
    found = dict(zip(chunk["query_id"].tolist(), answers.tolist(), strict=True))
    assert found == {hash_text("other"): [True, False], hash_text("red"): [True, True]}


def test_rows_of_one_product_share_their_values(
    tiny_config: Callable[..., Any], tiny_processor: AceBertProcessor, tmp_path: Path
) -> None:
    rows = [
        {"id": "A", "title": "shoe", "colour": None, "kind": "shoe"},
        {"id": "A", "title": "shoe", "colour": "red", "kind": "boot"},
        {"id": "B", "title": "bag", "colour": "red", "kind": "bag"},
    ]
    columns = Columns(attributes=["colour", "kind"])
    data = QueryDataset(Dataset.from_list(rows), columns, QueryTemplates(["{colour} {kind}"]))
    encoder = CorpusEncoder(AceBertModel(tiny_config()).eval(), tiny_processor, Accelerator(cpu=True), tmp_path, "tiny")
    expected = [[hash_text("red"), hash_text("shoe")], [hash_text("red"), hash_text("bag")]]
    assert CatalogNegatives.encode(data, encoder, "log").attributes.tolist() == expected
    # None has a photo, so no query is a title: all that aren't balanced are drawn row by row.
    data.title_query_probability = data.balanced_query_probability = 1.0
    assert any(data[row]["row"] != row for data.epoch in range(9) for row in range(3))


def test_the_loss() -> None:
    queries, products = unit_vectors(5, 8), unit_vectors(9, 8)
    own = torch.eye(5, 9, dtype=torch.bool)
    logits = 7.0 * queries @ products.t()
    one_way = torch.nn.functional.cross_entropy(logits, torch.arange(5))
    torch.testing.assert_close(answer_loss(logits, own), one_way)
    assert answer_loss(logits, torch.ones(5, 9, dtype=torch.bool)) == pytest.approx(0, abs=1e-6)
    some = own | (torch.arange(9) > 6)
    expected = -(logits.softmax(1) * some).sum(1).log().mean()
    torch.testing.assert_close(answer_loss(logits, some), expected)
    # Both widths count alike, and what is first is so by the whole vectors.
    cut = F.normalize(products[:, :3], dim=-1)
    loss, first = matryoshka_answer_loss(queries, [products, cut], some, 7.0)
    narrow = answer_loss(7.0 * F.normalize(queries[:, :3], dim=-1) @ cut.t(), some)
    torch.testing.assert_close(loss, (expected + narrow) / 2)
    assert torch.equal(first, logits.argmax(1))


@pytest.fixture
def frozen(flags: Callable[..., list[str]], tmp_path: Path) -> Callable[..., list[str]]:
    """Flags of a run of this stage, from a model that is fine-tuned for thirty steps."""
    script.main([*flags(output="start", max_train_steps=30, eval_steps=30), "--learning_rate", "1e-3"])

    def make(output: str = "run", **changes: object) -> list[str]:
        start = {"model_name_or_path": tmp_path / "start", "learning_rate": 3e-3, "head_learning_rate": 3e-3}
        return flags("query_side", output, **FROM_CHECKPOINT, **{**start, **changes})

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
    for step in (4, 6):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step_{step}")
    monkeypatch.setattr(CorpusEncoder, "encode", lambda *_: pytest.fail("encoded again"))
    script.main(arguments)
    resumed = read_weights(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert without_times(read_log(tmp_path / "run")) == without_times(entries)


def test_a_stop_while_encoding_keeps_what_is_done(
    frozen: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, done = CorpusEncoder.encode, []

    def stop_at_third(self: CorpusEncoder, *others: Any) -> torch.Tensor:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(others)
        return encode(self, *others)

    monkeypatch.setattr(CorpusEncoder, "encode", stop_at_third)
    with pytest.raises(SystemExit, match="Stopped while products were encoded; the same command goes on from there"):
        script.main(frozen(max_train_steps=1))
    assert len(list((tmp_path / "run").rglob("*.npy"))) == 2
    done.append(None)
    script.main(frozen(max_train_steps=1))
    assert len(done) == 2 * len(MODALITIES) + 1  # none twice


def test_validation_products_are_ranked_but_not_trained_against(
    frozen: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {"train": set(), "validation": set()}
    ranked_for = CatalogNegatives.ranked_for

    def spy(self: CatalogNegatives, chunk: dict[str, torch.Tensor]) -> Any:
        vectors, answers = ranked_for(self, chunk)
        assert answers.any(1).all()
        seen["train" if torch.is_grad_enabled() else "validation"].add(len(self.groups))
        return vectors, answers

    monkeypatch.setattr(CatalogNegatives, "ranked_for", spy)
    script.main(frozen(max_train_steps=2, eval_steps=1))
    assert seen == {"train": {64}, "validation": {64 + 16}}


def test_a_learning_rate_can_be_looked_for_first(
    frozen: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_learning_rate.main(frozen(num_steps=6, query_learning_rate=1e-3)) > 0
    suggested = capsys.readouterr().out
    assert "--query_learning_rate" in suggested and "--image_learning_rate" not in suggested
    monkeypatch.setattr(CorpusEncoder, "encode", lambda *_: pytest.fail("encoded again"))
    script.main(frozen(max_train_steps=1, learning_rate=1e-4))


def test_another_start_gets_vectors_of_its_own(frozen: Callable[..., list[str]], tmp_path: Path) -> None:
    arguments = frozen(max_train_steps=1, num_steps=2)
    find_learning_rate.main(arguments)
    before = set((tmp_path / "run/vectors").iterdir())
    weights = load_file(tmp_path / "start/model.safetensors")
    weights["acebert.product_projection.weight"] += 0.1
    save_file(weights, tmp_path / "start/model.safetensors", metadata={"format": "pt"})
    find_learning_rate.main(arguments)
    assert len(set((tmp_path / "run/vectors").iterdir())) == 2 * len(before)


def test_a_chunk_makes_no_difference(frozen: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """To the gradients: AdamW would hide a factor that all of them share."""
    common = {"max_train_steps": 1, "eval_steps": 1, "dropout": 0, "attention_dropout": 0}
    gradients: list[dict[str, torch.Tensor]] = []
    backward = QuerySideFinetuning.backward

    def spy(stage: QuerySideFinetuning, model: torch.nn.Module, *others: Any) -> Any:
        values = backward(stage, model, *others)
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        return values

    monkeypatch.setattr(QuerySideFinetuning, "backward", spy)
    for size in (2, 16):
        script.main(frozen(output=f"chunks-of-{size}", chunk_size=size, **common))
    small, large = gradients
    assert small.keys() == large.keys() and all(name.startswith("acebert.query_") for name in small)
    for name in small:
        torch.testing.assert_close(small[name], large[name], atol=1e-5, rtol=1e-3)


def test_shared_encoders_are_refused(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    script.main(flags(output="shared", share_encoders="true", max_train_steps=1, eval_steps=1))
    with pytest.raises(SystemExit, match="shares its encoders"):
        script.main(flags("query_side", **FROM_CHECKPOINT, model_name_or_path=tmp_path / "shared"))


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
