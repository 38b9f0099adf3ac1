"""The benchmark: what it counts as work, how it compares, and that each kind of row runs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import operations
import pytest
import report
import run
import torch
from timing import OURS, Row, Spread, interleave
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, PreTrainedModel, Siglip2Config, Siglip2Model
from workload import QUICK, Workload

import training
from acebert.modeling_acebert import AceBertForRetrieval, AceBertModel
from acebert.processing_acebert import AceBertProcessor

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture
def checkpoint(tiny_config: Callable, tiny_processor: AceBertProcessor, tmp_path: Path) -> str:
    folder = str(tmp_path / "checkpoint")
    AceBertForRetrieval(tiny_config()).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture
def workload(checkpoint: str) -> Workload:
    return Workload(checkpoint, None, QUICK)


class TestOperations:
    """Counted from the configuration as PyTorch counts them while the model runs, where nothing is padding."""

    batch, words, side = 3, 7, 2
    lengths = np.full(3, 7)
    input_ids = torch.full((3, 7), 5)

    @torch.inference_mode()
    def count(self, model: PreTrainedModel, call: Callable[[], object]) -> int:
        model.set_attn_implementation("eager")  # PyTorch doesn't count its fused attention on a CPU
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops()

    def test_bert(self) -> None:
        config = BertConfig(vocab_size=16, **SMALL)
        model = BertModel(config, add_pooling_layer=False)
        assert self.count(model, lambda: model(self.input_ids)) == operations.bert(config, self.lengths)

    @pytest.mark.parametrize("features", [{}, {"use_pixel_features": False}, {"use_patch_features": False}])
    def test_acebert(self, tiny_config: Callable, features: dict[str, bool]) -> None:
        config = tiny_config(pooling="cls", **features)
        model = AceBertModel(config)
        found = self.count(model, lambda: model.get_text_features(self.input_ids))
        assert found == operations.acebert_queries(config, self.lengths)
        patches = self.side**2
        pixel_values = torch.zeros(self.batch, patches, 3 * config.patch_size**2)
        shapes = torch.full((self.batch, 2), self.side)
        found = self.count(
            model, lambda: model.get_product_features(self.input_ids, pixel_values=pixel_values, spatial_shapes=shapes)
        )
        assert found == operations.acebert_products(config, self.lengths, np.full(self.batch, patches))

    def test_clip(self) -> None:
        vision = {**SMALL, "image_size": 16, "patch_size": 8}
        config = CLIPConfig(text_config={**SMALL, "vocab_size": 16}, vision_config=vision, projection_dim=24)
        model = CLIPModel(config)
        pixels = torch.zeros(self.batch, 3, 16, 16)
        found = self.count(
            model, lambda: (model.get_image_features(pixel_values=pixels), model.get_text_features(self.input_ids))
        )
        assert found == operations.clip(config, self.lengths)

    def test_siglip2(self) -> None:
        vision = {**SMALL, "patch_size": 8, "num_patches": 4}
        config = Siglip2Config(text_config={**SMALL, "vocab_size": 16}, vision_config=vision)
        model = Siglip2Model(config)
        patches = self.side**2
        photos = {
            "pixel_values": torch.zeros(self.batch, patches, 3 * 8**2),
            "pixel_attention_mask": torch.ones(self.batch, patches, dtype=torch.long),
            "spatial_shapes": torch.full((self.batch, 2), self.side),
        }
        found = self.count(model, lambda: (model.get_image_features(**photos), model.get_text_features(self.input_ids)))
        expected = operations.siglip2(config, self.lengths, np.full(self.batch, patches))
        assert found == pytest.approx(expected, rel=0.02)

    def test_padding_is_no_work(self) -> None:
        config = BertConfig(vocab_size=16, **SMALL)
        both = operations.bert(config, np.array([3, 9]))
        assert both == operations.bert(config, np.array([3])) + operations.bert(config, np.array([9]))

    def test_the_peer_in_training_costs_as_much(self, workload: Workload) -> None:
        words = np.array([3, 4, 4, 6])
        work = training.our_work(training.make_batch(workload, 4), workload.config)
        config = training.choose_peer_sizes(workload, work, words)
        assert operations.clip(config, words) == pytest.approx(work, rel=0.02)


class TestComparison:
    def test_contenders_take_turns_and_the_first_round_is_not_kept(self) -> None:
        calls: list[str] = []
        results = interleave(
            {name: lambda name=name: calls.append(name) or len(calls) for name in ("a", "b")}, repeats=2
        )
        assert calls == ["a", "b"] * 3
        assert results == {"a": [3, 5], "b": [4, 6]}

    def test_ratios_are_taken_within_a_round(self) -> None:
        # Between the rounds the machine became ten times as slow; the ratio is 2 in each.
        row = Row.of("work", "items/s", {OURS: [20.0, 2.0], "other": [10.0, 1.0]})
        assert row.ratios == {"other": Spread(2.0, 2.0, 2.0)}
        assert row.figures[OURS] == Spread(11.0, 2.0, 20.0)


class TestReport:
    def test_tables_are_replaced_between_the_markers(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(f"before\n{report.START}\nold\n{report.END}\nafter\n")
        report.replace_tables(page, "new")
        report.replace_tables(page, "newer")
        assert page.read_text() == f"before\n{report.START}\n\nnewer\n{report.END}\nafter\n"
        page.write_text("no markers")
        with pytest.raises(ValueError, match="benchmark: start"):
            report.replace_tables(page, "new")

    def test_the_page_has_its_markers(self) -> None:
        page = Path(run.__file__).parents[1] / "docs" / "performance.md"
        assert page.read_text().count(report.START) == page.read_text().count(report.END) == 1

    def test_a_page_takes_no_part_of_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit):
            run.main(["--quick", "--page", str(tmp_path / "page.md")])

    def test_what_was_not_run_is_said(self) -> None:
        machine = {"gpu": None, "bfloat16": False, "versions": {}} | dict.fromkeys(
            ("processor", "cores", "threads", "memory_gib", "models_compute_in", "system", "load_before"), "x"
        )
        rows = [Row("work", skipped="it needs a wheel."), Row.of("other work", "ms", {OURS: [1.0], "peer": [4.0]})]
        tables = report.results_markdown(machine, {"Group": rows})
        assert "work was not run: it needs a wheel." in tables
        assert "| other work | ACE-BERT | 1 ms |" in tables
        assert "|  | peer | 4 ms | 0.25 |" in tables


def test_a_quick_run_measures_all_rows(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bfloat16: bool
) -> None:
    monkeypatch.setattr(training, "measure_memory", lambda workload: [])  # in processes of its own: below
    run.main(["--quick", "--model_name_or_path", checkpoint, "--output_dir", str(tmp_path / "out")])
    record = json.loads((tmp_path / "out" / "performance.json").read_text())
    assert record["machine"]["bfloat16"] == bfloat16
    assert record["machine"]["models_compute_in"] == ("bfloat16" if bfloat16 else "float32")
    assert list(record["groups"]) == [title for title, _ in run.ROWS.values()]
    measured = [row for rows in record["groups"].values() for row in rows if not row["skipped"]]
    figures = [figure for row in measured for figure in row["figures"].values()]
    assert len(figures) > 20
    assert all(0 < figure["low"] <= figure["median"] <= figure["high"] for figure in figures)
    assert {name for row in measured for name in row["shares"]} >= {OURS, "CLIP ViT-B/32", "all-MiniLM-L6-v2"}
    assert (tmp_path / "out" / "performance.png").stat().st_size > 10_000
    tables = (tmp_path / "out" / "performance.md").read_text()
    assert "Fine-tuning" in tables and ("it emulates it" in tables) != bfloat16


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own(workload: Workload) -> None:
    rows = training.measure_memory(workload)
    assert [row.skipped for row in rows] == [None] * 4
    assert all(figure.median > 0 for row in rows for figure in row.figures.values())


def test_memory_of_a_call_is_its_peak() -> None:
    def hold(mib: int) -> None:
        values = torch.ones(mib * 2**18)
        for _ in range(20):
            values += 1

    assert 60 <= training.watch_memory(lambda: hold(64)) / 2**20 < 120
