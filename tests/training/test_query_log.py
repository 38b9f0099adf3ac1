"""Training on a shop's query log, and validation on the queries that were held out of it."""

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from helpers import COLOURS, KINDS, draw, product_rows, read_log

from acebert import train_accelerate as script
from acebert.data.columns import Columns
from acebert.data.pairs import PairDataset
from acebert.data.query_log import QueryLog
from acebert.training.command_line import parse_arguments
from acebert.training.held_out_queries import NDCG, RECALL, HeldOutQueries

DOCS = Path(script.__file__).parent / "docs" / "training.md"
NO_TEMPLATES = {"query_templates": None}


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Each colour and kind led to all products that are of both, the first of them twice as often."""
    rows = [
        {"query": f"{row['colour']} {row['kind']}", "product_id": row["id"], "clicks": 2 if row["id"] < 116 else 1}
        for row in product_rows(64)
    ]
    pd.DataFrame([*rows, {"query": "red", "product_id": 7, "clicks": 1}]).to_csv(tmp_path / "log.csv", index=False)
    return str(tmp_path / "log.csv")


def test_a_run_learns_from_a_log_and_validates_on_queries_held_out(
    flags: Callable[..., list[str]], log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"query_log": log, "query_log_weight_column": "clicks", "validation_query_share": 0.3, **NO_TEMPLATES}
    metrics = script.main(flags(**given, max_train_steps=40, eval_steps=40, learning_rate=1e-3, dropout=0))
    held_out = metrics[NDCG], metrics[RECALL]
    assert all(0 < value <= 1 for value in held_out)
    recalls = [metrics["title_to_image_recall@10"], metrics.get("query_to_product_recall@10")]
    parts = [value for value in (*recalls, metrics[NDCG]) if value is not None]
    kept = min(1.0, metrics.get("knowledge_kept", 1.0))
    assert metrics["score"] == pytest.approx(kept * sum(parts) / len(parts))
    assert {f"backbone_{NDCG}", f"bm25_{NDCG}"} < set(metrics)
    entries = [entry for entry in read_log(tmp_path / "run") if "matching_loss" in entry]
    assert entries[-1]["matching_loss"] < 0.8 * entries[0]["matching_loss"]
    said = capsys.readouterr().out
    queries = len(COLOURS) * len(KINDS)
    asked = int(said.split(" logged queries to train on, ")[0].split()[-1])
    assert f"{asked} logged queries to train on, {queries - asked} to validate on." in said and 0 < asked < queries
    recorded = json.loads((tmp_path / "run" / "training_args.json").read_text())
    assert recorded["query_log_data"].startswith("65 pairs")
    assert recorded["places"][log] == log


def test_the_example_of_the_documentation(flags: Callable[..., list[str]], backbone: str, tmp_path: Path) -> None:
    section = DOCS.read_text(encoding="utf-8").split("## Your query log")[1].split("\n## ")[0]
    table, command = (section.split(f"```{kind}\n")[1].split("```")[0] for kind in ("csv", "bash"))
    (tmp_path / "clicks.csv").write_text(table)
    rows = []
    for kind, sku in zip(KINDS, ("T-100", "T-104", "L-7", "L-9"), strict=True):
        draw(kind, "red", 0).save(tmp_path / f"{sku}.png")
        rows.append({"sku": sku, "name": f"red {kind}", "photo": f"{sku}.png"})
    pd.DataFrame(rows).to_csv(tmp_path / "catalogue.csv", index=False)
    given = shlex.split(command.replace("\\\n", " "))
    given.remove("--freeze_image_encoder")  # which a model of one stream doesn't have
    given = given[given.index("--stage") :]
    values: dict[str, object] = {
        name.removeprefix("--"): value for name, value in zip(given[::2], given[1::2], strict=True)
    }
    files = {name: str(tmp_path / Path(str(values[name])).name) for name in ("dataset_name", "query_log")}
    tiny = {"model_name_or_path": None, "text_teacher": backbone, "projection_dim": 32, "per_device_batch_size": 4}
    no_validation = {"validation_split": None, "validation_share": 0}
    script.main(flags(**{**values, **files, **tiny, **no_validation, **NO_TEMPLATES, "output_dir": tmp_path / "run"}))
    recorded = json.loads((tmp_path / "run" / "training_args.json").read_text())
    assert recorded["query_log_data"].startswith("5 pairs")
    assert recorded["query_log_weight_transform"] == "log"


def test_another_log_does_not_resume(flags: Callable[..., list[str]], log: str) -> None:
    arguments = flags(query_log=log, max_train_steps=1, **NO_TEMPLATES)
    script.main(arguments)
    script.main(arguments)
    with open(log, "a") as file:
        file.write("blue mug,100,3\n")
    with pytest.raises(SystemExit, match="query_log_data"):
        script.main(arguments)


def test_products_without_a_query_are_left_out_where_nothing_can_be_learned_from_them(
    flags: Callable[..., list[str]], log: str, caplog: pytest.LogCaptureFixture
) -> None:
    few = pd.read_csv(log).head(40)
    few.to_csv(log, index=False)
    no_photos = {"image_column": "none", "validation_split": None, "validation_share": 0, **NO_TEMPLATES}
    script.main(flags(query_log=log, max_train_steps=1, **no_photos))
    assert "24 of 64 products to train on have neither a query in the log nor both title and photo, such as '140'" in (
        caplog.text
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_column": "hot_query"}, "--query_column and --query_log are two places"),
        ({"query_log": None, "query_log_id_column": "sku"}, "--query_log_id_column say how --query_log is read"),
        ({"query_log_weight_transform": "square"}, "must be none, log, or clip:N"),
        ({"validation_query_share": 1.0}, "--validation_query_share must lie in [0, 1), got 1.0"),
        ({"stage": "align", **NO_TEMPLATES}, "--stage align doesn't take --query_log (of finetune): leave out."),
    ],
)
def test_flags_that_do_not_go_together(
    changes: dict[str, object],
    message: str,
    flags: Callable[..., list[str]],
    log: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(flags(**{"query_log": log, **changes}))
    assert message in capsys.readouterr().err


class TestHeldOutQueries:
    @pytest.fixture
    def splits(self) -> list[PairDataset]:
        products = Dataset.from_list(product_rows(12))
        return [PairDataset(products.select(rows), Columns()) for rows in (range(9), range(9, 12))]

    def test_by_hand(self, splits: list[PairDataset]) -> None:
        log = QueryLog.from_rows(["a", "a", "b"], ["100", "110", "101"], [4.0, 1.0, 1.0])
        held_out = HeldOutQueries(log, splits, size=0)
        assert sorted(held_out.ids) == sorted(str(row["id"]) for row in product_rows(12))
        place = {product_id: column for column, product_id in enumerate(held_out.ids)}
        scores = torch.zeros(2, 12)
        # "a" finds its better product in the second place, the other one nowhere; "b" finds its own first.
        first = [held_out.queries.index(query) for query in ("a", "b")]
        for column in range(12):
            scores[first[0], column] = -column if held_out.ids[column] not in ("100", "110") else -100
        scores[first[0], place["100"]] = 0.5 + scores[first[0]].topk(2).values[1]
        scores[first[1], place["101"]] = 1
        found = held_out.score(scores.__getitem__)
        ideal = 1 + 0.25 / math.log2(3)
        assert found[NDCG] == pytest.approx((1 / math.log2(3) / ideal + 1) / 2)
        assert found[RECALL] == pytest.approx((0.5 + 1) / 2)

    def test_products_are_sampled_and_all_answers_are_among_them(self, splits: list[PairDataset]) -> None:
        log = QueryLog.from_rows(["a", "b", "c"], ["100", "110", "101"], [1.0] * 3)
        held_out = HeldOutQueries(log, splits, size=5)
        assert len(held_out.ids) == len(set(held_out.ids)) == 5 and {"100", "101", "110"} < set(held_out.ids)
        few = HeldOutQueries(log, splits, size=2)
        assert len(few.queries) == 2 and len(few.ids) == 2
        encoded = held_out.encode_products(lambda data, rows: torch.tensor([[float(data.ids[row])] for row in rows]))
        assert [str(int(value)) for value in encoded[:, 0]] == held_out.ids
        other = QueryLog.from_rows(["a"], ["9"], np.ones(1).tolist())
        with pytest.raises(ValueError, match="None of the queries held out"):
            HeldOutQueries(other, splits, size=0)
