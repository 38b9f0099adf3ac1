"""Query logs: reading, weights, what is held out, what is drawn, and what answers a query."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from helpers import product_rows

from acebert.data.collators import PairCollator
from acebert.data.columns import Columns
from acebert.data.grouping import hash_text
from acebert.data.pairs import PairDataset
from acebert.data.query_log import LogColumns, LoggedQueries, QueryLog, load_query_log, weight_transform
from acebert.processing_acebert import AceBertProcessor

CLICKS = LogColumns(weight="clicks")
ROWS = {
    "query": ["red shoe", "Red  Shoe", "red shoe", "mug", "blue mug"],
    "product_id": ["101", "101", "105", "103", "103"],
    "clicks": ["3", "1", "1", "2", "6"],
}


def pairs_of(log: QueryLog) -> dict[tuple[str, str], float]:
    numbers = zip(log.query_numbers, log.product_numbers, log.weights, strict=True)
    return {(log.queries[query], log.ids[product]): weight for query, product, weight in numbers}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pd.DataFrame(ROWS).to_csv(tmp_path / "log.csv", index=False)
    return tmp_path / "log.csv"


@pytest.fixture
def log() -> QueryLog:
    return QueryLog.from_rows(ROWS["query"], ROWS["product_id"], list(map(float, ROWS["clicks"])))


EXPECTED = {("red shoe", "101"): 4, ("red shoe", "105"): 1, ("mug", "103"): 2, ("blue mug", "103"): 6}


class TestReading:
    def test_rows_of_one_query_and_product_are_added_up(self, file: Path) -> None:
        assert pairs_of(load_query_log(str(file), CLICKS)) == EXPECTED
        assert pairs_of(load_query_log(str(file)))["red shoe", "101"] == 2  # without weights rows are counted

    @pytest.mark.parametrize("kind", ["jsonl", "parquet", "folder"])
    def test_every_kind_of_table_that_a_catalogue_may_be(self, kind: str, tmp_path: Path) -> None:
        table = pd.DataFrame(ROWS).astype({"product_id": int, "clicks": float})
        path = tmp_path / f"log.{kind}"
        if kind == "jsonl":
            table.to_json(path, orient="records", lines=True)
        elif kind == "parquet":
            table.to_parquet(path)
        else:
            path.mkdir()
            table.to_csv(path / "clicks.csv", index=False)
        assert pairs_of(load_query_log(str(path), CLICKS)) == EXPECTED

    @pytest.mark.parametrize(
        ("column", "value", "message"),
        [
            ("clicks", "-2", "row 2: clicks is '-2': a weight is a number of 0 or more"),
            ("clicks", "nan", "row 2: clicks is 'nan'"),
            ("clicks", "many", "row 2: clicks is 'many'"),
            ("clicks", None, "row 2: clicks is missing"),
            ("query", None, "row 2: query is missing"),
            ("product_id", None, "row 2: product_id is missing"),
        ],
    )
    def test_a_bad_row_is_named_or_left_out(
        self, column: str, value: str | None, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows: dict[str, list[str | None]] = {name: list(values) for name, values in ROWS.items()}
        rows[column][2] = value
        pd.DataFrame(rows).to_json(tmp_path / "log.jsonl", orient="records", lines=True)
        with pytest.raises(ValueError, match="--on_bad_row skip") as error:
            load_query_log(str(tmp_path / "log.jsonl"), CLICKS)
        assert message in str(error.value)
        kept = load_query_log(str(tmp_path / "log.jsonl"), CLICKS, "skip", tmp_path / "bad.jsonl")
        assert pairs_of(kept) == {pair: weight for pair, weight in EXPECTED.items() if pair != ("red shoe", "105")}
        assert json.loads((tmp_path / "bad.jsonl").read_text())["row"] == 2

    @pytest.mark.parametrize("value", [-1.0, float("inf")])
    def test_bad_numbers_of_a_typed_table(self, value: float, tmp_path: Path) -> None:
        table = pd.DataFrame({**ROWS, "clicks": [1.0, 2.0, value, 1.0, 1.0]})
        table.to_parquet(tmp_path / "log.parquet")
        with pytest.raises(ValueError, match=f"row 2: clicks is '{value}'"):
            load_query_log(str(tmp_path / "log.parquet"), CLICKS)

    def test_other_faults_are_named(self, file: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"No column \['sku'\].*'clicks'.*--query_log_id_column"):
            load_query_log(str(file), LogColumns(id="sku"))
        with pytest.raises(ValueError, match="isn't there"):
            load_query_log(str(tmp_path / "no.csv"))
        pd.DataFrame({**ROWS, "clicks": [0] * 5}).to_csv(file, index=False)
        with pytest.raises(ValueError, match="All weights"):
            load_query_log(str(file), CLICKS)

    def test_a_weight_of_0_is_no_match(self, tmp_path: Path) -> None:
        pd.DataFrame({**ROWS, "clicks": [0, 0, 1, 2, 6]}).to_csv(tmp_path / "log.csv", index=False)
        read = load_query_log(str(tmp_path / "log.csv"), CLICKS)
        assert ("red shoe", "101") not in pairs_of(read) and "101" not in read.ids


class TestWeights:
    def test_transforms(self, log: QueryLog) -> None:
        assert pairs_of(log.transform(weight_transform("none"))) == EXPECTED
        clipped = pairs_of(log.transform(weight_transform("clip:2.5")))
        assert clipped == {pair: min(weight, 2.5) for pair, weight in EXPECTED.items()}
        logged = pairs_of(log.transform(weight_transform("log")))
        assert logged["red shoe", "101"] == pytest.approx(np.log(5))

    @pytest.mark.parametrize("name", ["clip", "clip:0", "clip:nan", "clip:x", "square"])
    def test_unknown_transforms(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"none, log, or clip:N .* got {name!r}"):
            weight_transform(name)

    def test_grades_are_shares_of_the_best(self, log: QueryLog) -> None:
        assert sorted(log.grades) == [0.25, 1.0, 1.0, 1.0]


class TestParts:
    def test_queries_are_held_out_by_their_text(self) -> None:
        queries = [f"query {i % 200}" for i in range(1000)]
        log = QueryLog.from_rows(queries, [str(i) for i in range(1000)], [1.0] * 1000)
        rest, held = log.hold_out(0.2)
        assert not set(rest.queries) & set(held.queries) and len(rest) + len(held) == 1000
        assert len(held) == 5 * len(held.queries) and len(held.queries) / 200 == pytest.approx(0.2, abs=0.1)
        again = QueryLog.from_rows(queries[::-1], [str(i) for i in range(1000)], [1.0] * 1000).hold_out(0.2)[1]
        assert set(again.queries) == set(held.queries)
        with pytest.raises(ValueError, match="--validation_query_share"):
            log.hold_out(1e-9)

    def test_what_the_catalogue_lacks_is_told(self, log: QueryLog, caplog: pytest.LogCaptureFixture) -> None:
        assert log.restrict({"101", "103", "105", "9"}) is log
        known = log.restrict({"103", "101"})
        assert ("red shoe", "105") not in pairs_of(known) and len(known) == 3
        assert "lacks 1 of the query log's 3 products, such as '105': 1 of 4 pairs" in caplog.text
        with pytest.raises(ValueError, match=r"none of the 3 products .* names '101'; the catalogue has 'A1'"):
            log.restrict({"A1"})


class TestDrawing:
    @pytest.fixture
    def data(self, log: QueryLog) -> PairDataset:
        return PairDataset(Dataset.from_list(product_rows(8)), Columns(), None, 0.0, 0.0, 0.0, log=log)

    def test_in_proportion_to_the_weights(self, data: PairDataset) -> None:
        assert data.logged is not None
        rng = np.random.default_rng(0)
        drawn = Counter(data.logged.draw(3, rng) for _ in range(2000))
        assert drawn["blue mug"] / 2000 == pytest.approx(0.75, abs=0.03) and set(drawn) == {"mug", "blue mug"}
        assert data.logged.draw(0, rng) is None

    def test_rows_have_the_grade_of_their_product(self, data: PairDataset) -> None:
        assert (data[1]["query"], data[1]["weight"]) == ("red shoe", 1.0)
        assert (data[5]["query"], data[5]["weight"]) == ("red shoe", 0.25)
        title = data[0]  # has no query
        assert title["from_title"] and title["weight"] == 1.0

    def test_all_products_of_a_query_are_its_positives(self, data: PairDataset) -> None:
        assert data.logged is not None
        ids = torch.tensor([hash_text(text) for text in ("RED shoe", "mug", "cup")])
        found = data.logged.find_positives(ids, torch.from_numpy(data.groups))
        expected = torch.zeros(3, 8, dtype=torch.bool)
        expected[0, [1, 5]] = expected[1, 3] = True
        assert torch.equal(found, expected)

    def test_ids_are_compared_as_texts(self, log: QueryLog) -> None:
        for ids in ([101, 103], ["101", "103"], [101.0, 103.0]):
            assert LoggedQueries(log, ids, np.arange(2)).has_query(0)

    def test_weights_reach_the_batch(self, data: PairDataset, tiny_processor: AceBertProcessor) -> None:
        batch = PairCollator(tiny_processor)([data[row] for row in (1, 5, 0)])
        assert batch["weights"].tolist() == [1.0, 0.25, 1.0]
        plain = PairDataset(Dataset.from_list(product_rows(8)), Columns())
        assert "weights" not in PairCollator(tiny_processor)([plain[0]])
