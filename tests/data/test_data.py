"""Catalogues as training data: loading, queries, draws that don't depend on workers, and batches."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from helpers import draw, product_rows
from PIL import Image
from torch.utils.data import DataLoader

from acebert.data.batching import split_by_length
from acebert.data.collators import MaskingCollator, PairCollator
from acebert.data.columns import Columns
from acebert.data.grouping import group_products, hash_text
from acebert.data.pairs import PairDataset, PretrainingDataset
from acebert.data.query_templates import QueryTemplates
from acebert.data.sources import hold_out, load_products
from acebert.image_processing_acebert import RAW_PATCHES
from acebert.processing_acebert import AceBertProcessor

COLUMNS = Columns(attributes=["colour", "kind"])
TEMPLATES = QueryTemplates(["{colour} {kind}"], drop_probability=0.0)


@pytest.fixture
def products(catalog_folder: Path) -> Dataset:
    return load_products([str(catalog_folder)], "train", COLUMNS)


class TestLoading:
    def test_folder(self, products: Dataset) -> None:
        assert products.num_rows == 64
        assert set(products.column_names) == {"id", "title", "image", "colour", "kind"}
        assert set(products[0]["image"]) == {"bytes", "path"}  # not decoded

    def test_csv_with_paths_relative_to_it(self, tmp_path: Path) -> None:
        draw("shirt", "red", 0).save(tmp_path / "a.png")
        table = pd.DataFrame({"id": [1, 2], "title": ["red shirt", "mug"], "image": ["a.png", None]})
        table.to_csv(tmp_path / "shop.csv", index=False)
        loaded = load_products([str(tmp_path / "shop.csv")], "train", Columns())
        assert loaded[0]["image"]["path"] == str(tmp_path / "a.png")
        assert loaded[1]["image"] is None

    def test_two_catalogues_one_after_another(self, catalog_folder: Path, tmp_path: Path) -> None:
        Dataset.from_list([{"id": 1, "title": "no photo", "brand": "x"}]).to_parquet(tmp_path / "other.parquet")
        columns = Columns(attributes=["brand", "kind"])
        both = load_products([str(catalog_folder), str(tmp_path / "other.parquet")], "train", columns)
        assert both.num_rows == 65
        product_id = f"{tmp_path}/other.parquet:1"  # another catalogue's 1 is another product
        assert both[64] == {"id": product_id, "title": "no photo", "brand": "x", "kind": None, "image": None}
        assert both[0]["brand"] is None
        twice = load_products([str(catalog_folder)] * 2, "train", columns := Columns())
        assert (twice["id"][0], columns.id) == (twice["id"][64], "id")  # one catalogue, given twice

    def test_columns_that_hold_nothing_and_ids_that_are_missing(self, tmp_path: Path) -> None:
        table = pd.DataFrame({"id": [1, 2], "title": ["red shirt", "mug"], "image": [None, None]})
        table.to_csv(tmp_path / "shop.csv", index=False)
        assert load_products([str(tmp_path / "shop.csv")], "train", Columns()).column_names == ["id", "title"]
        table.assign(id=[None, "b"]).to_csv(tmp_path / "lost.csv", index=False)
        with pytest.raises(ValueError, match="Row 0 has no id"):
            load_products([str(tmp_path / "lost.csv")], "train", Columns())

    def test_urls_are_refused(self, tmp_path: Path) -> None:
        table = pd.DataFrame({"id": [1], "title": ["mug"], "image": ["https://shop/mug.jpg"]})
        table.to_csv(tmp_path / "shop.csv", index=False)
        with pytest.raises(ValueError, match=r"image of row 0 is the URL https://shop/mug.jpg: download"):
            load_products([str(tmp_path / "shop.csv")], "train", Columns())

    def test_missing_columns_and_splits_are_named(self, catalog_folder: Path) -> None:
        with pytest.raises(ValueError, match=r"No column \['name'\].*'gender'.*'title'.*--title_column"):
            load_products([str(catalog_folder)], "train", Columns(title="name"))
        with pytest.raises(ValueError, match=r"no split 'test': it has \['train', 'validation'\]"):
            load_products([str(catalog_folder)], "test", COLUMNS)

    def test_hold_out_keeps_products_together_and_is_the_same_every_time(self) -> None:
        rows = [{"id": i, "title": f"title {i % 300}", "image": None} for i in range(600)]
        products = Dataset.from_list(rows)
        rest, held = hold_out(products, Columns(), 0.2)
        assert len(rest) + len(held) == 600
        assert len(held) / 600 == pytest.approx(0.2, abs=0.06)
        assert not set(rest["title"]) & set(held["title"])
        backwards = hold_out(products.select(range(599, -1, -1)), Columns(), 0.2)[1]
        assert set(backwards["id"]) == set(held["id"])
        with pytest.raises(ValueError, match="--validation_share"):
            hold_out(products.select(range(3)), Columns(), 0.001)


class TestQueries:
    def test_template(self) -> None:
        rng = np.random.default_rng(0)
        product = {"colour": "red", "kind": "shoe", "gender": None}
        assert TEMPLATES.make(product, rng) == ("red shoe", ["colour", "kind"])
        with_gender = QueryTemplates(["{gender} {colour} {kind}"], drop_probability=0.0)
        assert with_gender.make(product, rng) == ("red shoe", ["colour", "kind"])
        assert QueryTemplates(["{gender}"]).make(product, rng) is None

    def test_words_of_the_template_are_asked_for_too(self) -> None:
        templates, rng = QueryTemplates(["{colour} shoes"], drop_probability=0.0), np.random.default_rng(0)
        assert templates.make({"colour": "red"}, rng) == ("red shoes", [])

    def test_whole_numbers_beside_missing_ones_stay_whole(self) -> None:
        rows = [
            {"id": 1, "title": "x", "size": 42.0, "image": None},
            {"id": 2, "title": "y", "size": None, "image": None},
        ]
        data = PairDataset(Dataset.from_list(rows), Columns(), QueryTemplates(["{size}"]), 0.0)
        assert data[0]["query"] == "42"
        rows = [{"id": 1, "title": "x", "size": [4, 5], "image": None}]
        with pytest.raises(ValueError, match=r"size of row 0 is \[4, 5\]"):
            PairDataset(Dataset.from_list(rows), Columns(), QueryTemplates(["{size}"]))

    def test_attributes_are_dropped_but_never_all(self) -> None:
        templates, rng = QueryTemplates(["{colour} {kind}"], drop_probability=0.5), np.random.default_rng(0)
        drawn = Counter(templates.make({"colour": "red", "kind": "shoe"}, rng)[0] for _ in range(2000))
        assert set(drawn) == {"red shoe", "red", "shoe"}
        assert drawn["red shoe"] / 2000 == pytest.approx(0.25, abs=0.04)

    def test_what_is_refused(self) -> None:
        for template, message in (
            ("shoes", "names no attribute"),
            ("{colour", "can't be read"),
            ("{0} shoes", "name columns plainly"),
            ("{year:.0f}", "name columns plainly"),
            ("{year.real}", "name columns plainly"),
            ("{ }", "name columns plainly"),
        ):
            with pytest.raises(ValueError, match=message):
                QueryTemplates([template])
        with pytest.raises(ValueError, match=r"\[0, 1\)"):
            QueryTemplates(["{kind}"], drop_probability=1.0)

    def test_columns_with_spaces_in_their_names(self) -> None:
        templates = QueryTemplates(["{colour name} {Größe (EU)}"], drop_probability=0.0)
        assert templates.attributes == ["colour name", "Größe (EU)"]
        product = {"colour name": "red", "Größe (EU)": 42}
        assert templates.make(product, np.random.default_rng(0)) == ("red 42", ["colour name", "Größe (EU)"])

    def test_hash_ignores_case_and_spacing(self) -> None:
        assert hash_text("Red  Shoe ") == hash_text("red shoe") != hash_text("redshoe")
        assert hash_text("red shoe") == 7666004451309501555  # the same in every process and version

    def test_groups_join_ids_and_titles(self) -> None:
        groups = group_products([1, 2, 1, 3, 4, 5], ["a", "b", "c", "C", None, None])
        assert groups[0] == groups[2] == groups[3]
        assert len({groups[0], groups[1], groups[4], groups[5]}) == 4


class TestPairs:
    def test_title_queries_show_the_photo_alone(self, products: Dataset) -> None:
        for row in range(10):
            item = PairDataset(products, COLUMNS, TEMPLATES, title_query_probability=1.0)[row]
            assert item["query"] == products[row]["title"]
            assert item["title"] is None and item["image"] is not None and item["from_title"]
            assert (item["query_attributes"] == -1).all()

    def test_shares_are_as_asked(self, products: Dataset) -> None:
        data = PairDataset(products, COLUMNS, TEMPLATES, 0.0, drop_title_probability=0.3, drop_image_probability=0.2)
        items = []
        for epoch in range(20):
            data.set_epoch(epoch)
            items += [data[row] for row in range(len(data))]
        shares = Counter((item["title"] is None, item["image"] is None) for item in items)
        assert shares[True, True] == 0
        assert shares[True, False] / len(items) == pytest.approx(0.3, abs=0.05)
        assert shares[False, True] / len(items) == pytest.approx(0.2, abs=0.05)

    def test_a_query_knows_which_products_answer_it(self, products: Dataset) -> None:
        item = PairDataset(products, COLUMNS, TEMPLATES, 0.0)[5]
        assert item["query"] == f"{products[5]['colour']} {products[5]['kind']}"
        assert (item["query_attributes"] == item["product_attributes"]).all()

    def test_draws_depend_on_seed_epoch_and_row_alone(self, products: Dataset) -> None:
        def draws(seed: int, epoch: int) -> list[tuple]:
            data = PairDataset(products, COLUMNS, QueryTemplates(["{colour} {kind}"]), seed=seed)
            data.set_epoch(epoch)
            return [(data[row]["query"], data[row]["title"]) for row in (3, 1, 3, 2)]

        assert draws(0, 1) == draws(0, 1)
        assert draws(0, 1)[0] == draws(0, 1)[2]
        assert len({str(draws(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4

    def test_mirrored_photos(self, products: Dataset) -> None:
        flipped = PairDataset(products, COLUMNS, TEMPLATES, 1.0, flip_probability=1.0)[0]["image"]
        plain = load_products_decoded(products[0]["image"])
        assert np.array_equal(np.asarray(flipped), np.asarray(plain)[:, ::-1])

    def test_cut_photos(self, products: Dataset) -> None:
        data = PairDataset(products, COLUMNS, TEMPLATES, 1.0, crop_probability=1.0)
        whole = np.asarray(load_products_decoded(products[0]["image"]))
        sizes = set()
        for epoch in range(30):
            data.set_epoch(epoch)
            part = np.asarray(data[0]["image"])
            sizes.add(part.shape)
            assert all(
                0.8 * full - 0.5 <= side <= full for side, full in zip(part.shape[:2], whole.shape[:2], strict=True)
            )
            windows = np.lib.stride_tricks.sliding_window_view(whole, part.shape)
            assert (windows == part).all(axis=(-3, -2, -1)).any()  # a part of the photo, colours untouched
        assert len(sizes) > 10

    def test_words_stand_for_a_product(self, products: Dataset) -> None:
        data = PairDataset(products, COLUMNS, TEMPLATES, title_query_probability=0.5)
        assert [data.words_of(row) for row in range(len(data))] == products["title"][:]
        columns = Columns(query="query", hot_query="hot", image=None, attributes=["colour"])
        rows = [{"id": i, "title": None, "query": None, "hot": None, "colour": None} for i in range(4)]
        rows[0] |= {"hot": "hot words", "query": "real words", "colour": "red"}
        rows[1] |= {"query": "real words"}
        rows[2] |= {"colour": "red"}
        untitled = PairDataset(Dataset.from_list(rows), columns, QueryTemplates(["{colour} thing"]))
        assert [untitled.words_of(row) for row in range(3)] == ["hot words", "real words", "red thing"]
        with pytest.raises(ValueError, match=r"3 \(row 3\) has no words"):
            untitled.words_of(3)

    def test_a_mirrored_photo_is_read_as_the_processor_reads_it(self, tiny_processor: AceBertProcessor) -> None:
        """Transparency on white, and upright; and a broken one is named by its product."""
        clear = Image.new("RGBA", (30, 40), (0, 0, 0, 0))
        clear.paste((200, 0, 0, 255), (5, 5, 20, 35))
        stored = io.BytesIO()
        clear.save(stored, "PNG")
        rows = [{"id": "p1", "title": "x", "image": {"bytes": stored.getvalue(), "path": None}}]
        rows += [{"id": "p2", "title": "y", "image": {"bytes": b"no photo", "path": None}}]
        products = Dataset.from_list(rows)
        data = PairDataset(products, Columns(), None, 1.0, flip_probability=1.0)
        assert data[0]["image"].getpixel((0, 0)) == (255, 255, 255)
        with pytest.raises(ValueError, match=r"photo of product 'p2' \(row 1\) can't be read"):
            data[1]
        plain = PairDataset(products, Columns(), None, 1.0)
        with pytest.raises(ValueError, match=r"Product 'p2' \(row 1\): the photo can't be used"):
            PairCollator(tiny_processor)([plain[0], plain[1]])

    def test_real_and_hot_queries_are_used(self) -> None:
        rows = [{"id": 1, "title": "x", "query": "warm shirt", "hot": "shirts", "image": None}]
        columns = Columns(query="query", hot_query="hot")
        data = PairDataset(Dataset.from_list(rows), columns, None, 0.0)
        seen = set()
        for epoch in range(30):
            data.set_epoch(epoch)
            seen.add(data[0]["query"])
        assert seen == {"warm shirt", "shirts"}

    def test_rows_that_teach_nothing_are_named(self) -> None:
        rows = [{"id": "p7", "title": "x", "image": None}, {"id": "p8", "title": " ", "image": None}]
        data = PairDataset(Dataset.from_list(rows), Columns(), None)
        with pytest.raises(ValueError, match=r"Product 'p7' \(row 0\) has neither a query"):
            data[0]
        with pytest.raises(ValueError, match="no product"):
            PairDataset(Dataset.from_dict({"id": [], "title": []}), Columns(), None)


def load_products_decoded(photo: dict) -> Image.Image:
    return Image.open(io.BytesIO(photo["bytes"])).convert("RGB")


def lengths_of(chunk: dict[str, torch.Tensor]) -> list[tuple[int, int]]:
    """Words and patches of each row, padding not counted."""
    words, patches = chunk["attention_mask"].sum(1), chunk["pixel_attention_mask"].sum(1)
    return list(zip(words.tolist(), patches.tolist(), strict=True))


@pytest.mark.parametrize("fields", [("titles",), ("images",), ("titles", "images")])
def test_split_by_length_keeps_every_row_and_pads_less(
    tiny_processor: AceBertProcessor, fields: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(0)
    rows = {
        "titles": [" ".join(rng.choice(list("abcdefghij"), size)) for size in rng.integers(1, 30, size=64)],
        "images": [draw("shirt", "red", int(shift)) if shift else None for shift in rng.integers(0, 9, size=64)],
    }
    rows["images"][0] = draw("mug", "blue", 0)
    if fields == ("images",):
        rows["images"] = [photo or draw("bag", "red", 0) for photo in rows["images"]]
    inputs = tiny_processor.process_products(**{name: rows[name] for name in fields}, return_tensors="pt")
    parts = split_by_length(inputs, size=8)
    assert torch.equal(torch.cat([numbers for numbers, _ in parts]).sort().values, torch.arange(64))
    for mask, values in (("attention_mask", "input_ids"), ("pixel_attention_mask", "pixel_values")):
        if mask not in inputs:
            continue
        for numbers, chunk in parts:
            length = chunk[mask].shape[1]
            torch.testing.assert_close(chunk[values], inputs[values][numbers, :length])
            assert length == max(1, int(inputs[mask][numbers].sum(1).max()))
    computed = sum(chunk["attention_mask"].numel() for _, chunk in parts) if "titles" in fields else 0
    assert computed < 0.75 * inputs.get("attention_mask", torch.ones(8, 64)).numel()


class TestBatches:
    def test_chunks_hold_every_row_once_and_little_padding(
        self, products: Dataset, tiny_processor: AceBertProcessor
    ) -> None:
        data = PairDataset(products, COLUMNS, TEMPLATES, 0.5)
        rows = [data[i] for i in range(30)]
        batch = PairCollator(tiny_processor, chunk_size=8)(rows)
        chunks = batch["chunks"]
        assert max(len(chunk["query_input_ids"]) for chunk in chunks) <= 8
        for chunk in chunks:
            assert len(chunk["query_input_ids"]) == len(chunk["input_ids"])
            for mask in ("query_attention_mask", "attention_mask", "pixel_attention_mask"):
                assert chunk[mask].sum(1).max() == chunk[mask].shape[1] or chunk[mask].shape[1] == 1
            assert chunk["pixel_values"].shape[1] == chunk["pixel_position_ids"].shape[1]
            # No photo alone pays for a title, no title alone for a photo.
            assert len({(int(t > 2), int(p > 0)) for t, p in lengths_of(chunk)}) == 1
        assert batch["query_ids"].tolist() == [row["query_id"] for row in rows]

        def in_order(name: str, order: str) -> list[str]:
            ids = [row for chunk in chunks for row in chunk[name]]
            ids = [ids[i] for i in batch[order].tolist()]
            return [tiny_processor.tokenizer.decode(row, skip_special_tokens=True) for row in ids]

        assert in_order("query_input_ids", "query_order") == [row["query"] for row in rows]
        assert in_order("input_ids", "product_order") == [row["title"] or "" for row in rows]
        lengths = [int(chunk["query_attention_mask"].sum(1).max()) for chunk in chunks]
        assert lengths == sorted(lengths)

    def test_dropped_patches(self, products: Dataset, tiny_processor: AceBertProcessor) -> None:
        data = PairDataset(products, COLUMNS, TEMPLATES, 0.5, drop_title_probability=0.0, drop_image_probability=0.0)
        rows = [data[i] for i in range(40)]
        plain = tiny_processor(images=[row["image"] for row in rows], return_tensors="pt", **RAW_PATCHES)

        def collate(probability: float) -> dict[str, torch.Tensor]:
            batch = PairCollator(tiny_processor, 40, probability, seed=1, dataset=data)(rows)
            parts = [{n: v for n, v in chunk.items() if n.startswith("pixel")} for chunk in batch["chunks"]]
            width = max(part["pixel_values"].shape[1] for part in parts)
            for part in parts:
                for name, value in part.items():
                    gap = (0, 0) * (value.ndim - 2) + (0, width - value.shape[1])
                    part[name] = torch.nn.functional.pad(value, gap)
            return {name: torch.cat([p[name] for p in parts])[batch["product_order"]] for name in parts[0]}

        some = collate(0.4)
        kept = some["pixel_attention_mask"].sum() / plain["pixel_attention_mask"].sum()
        assert kept == pytest.approx(0.6, abs=0.07)
        for i in range(40):
            # What is left lies in front, and is the photo's patch of that place.
            n = int(some["pixel_attention_mask"][i].sum())
            assert some["pixel_attention_mask"][i, :n].all() and not some["pixel_values"][i, n:].any()
            places = {int(p): v for p, v in zip(plain["pixel_position_ids"][i], plain["pixel_values"][i], strict=True)}
            for place, patch in zip(some["pixel_position_ids"][i, :n], some["pixel_values"][i, :n], strict=True):
                assert torch.equal(places[int(place)], patch)
        assert torch.equal(collate(0.4)["pixel_values"], some["pixel_values"])
        assert (collate(0.99)["pixel_attention_mask"].sum(1) >= 1).all()  # no photo loses all
        data.set_epoch(1)
        assert not torch.equal(collate(0.4)["pixel_attention_mask"].sum(1), some["pixel_attention_mask"].sum(1))

    def test_masking(self, tiny_processor: AceBertProcessor) -> None:
        rows = product_rows(64)
        products = Dataset.from_list([{**row, "image": None} for row in rows])
        data = PretrainingDataset(products, Columns(), None)
        items = [data[i] | {"image": row["image"]} for i, row in enumerate(rows)] * 8
        collate = MaskingCollator(tiny_processor, data, 0.3, 0.4, mismatch_probability=0.25)
        batch = collate(items)
        masked = batch["labels"] != -100
        ordinary = batch["input_ids"] > 4
        original = torch.where(masked, batch["labels"], batch["input_ids"])
        assert not (masked & (original <= 4)).any()  # special tokens are never masked
        assert masked.sum() / (original > 4).sum() == pytest.approx(0.3, abs=0.04)
        is_mask = batch["input_ids"] == tiny_processor.tokenizer.mask_token_id
        assert is_mask.sum() / masked.sum() == pytest.approx(0.8, abs=0.05)
        assert not (is_mask & ~masked).any() and ordinary.any()
        patches = batch["pixel_attention_mask"].bool()
        assert (batch["bool_masked_pos"] & ~patches).sum() == 0
        assert batch["bool_masked_pos"].sum() / patches.sum() == pytest.approx(0.4, abs=0.04)
        assert 1 - batch["matching_labels"].float().mean() == pytest.approx(0.25, abs=0.06)
        again = collate(items)
        assert all(torch.equal(batch[name], again[name]) for name in batch)
        data.set_epoch(1)
        assert not torch.equal(collate(items)["labels"], batch["labels"])

    def test_a_hot_query_that_is_true_of_the_product_is_no_mismatch(self, tiny_processor: AceBertProcessor) -> None:
        rows = [{"id": i, "title": f"{c} mug", "colour": c} for i, c in enumerate(["red", "red", "red", "blue"] * 8)]
        data = PretrainingDataset(
            Dataset.from_list(rows), Columns(), QueryTemplates(["{colour}"], drop_probability=0.0)
        )
        seen = 0
        for epoch in range(10):
            data.set_epoch(epoch)
            items = [data[i] for i in range(32)]
            batch = MaskingCollator(tiny_processor, data, 0.0, 0.0, mismatch_probability=1.0)(items)
            for ids, types, label in zip(
                batch["input_ids"], batch["token_type_ids"], batch["matching_labels"], strict=True
            ):
                hot = tiny_processor.tokenizer.decode(ids[types == 1], skip_special_tokens=True)
                title = tiny_processor.tokenizer.decode(ids[types == 0], skip_special_tokens=True)
                if hot:
                    seen += 1
                    assert (hot == title.split()[0]) == (label == 1)
        assert seen > 100

    def test_batches_without_photos_use_the_same_weights(self, tiny_processor: AceBertProcessor) -> None:
        rows = [{"id": i, "title": "red mug", "colour": "red"} for i in range(4)]
        data = PairDataset(Dataset.from_list(rows), Columns(), QueryTemplates(["{colour}"]), 0.0)
        chunk = PairCollator(tiny_processor)([data[i] for i in range(4)])["chunks"][0]
        assert chunk["pixel_values"].shape == (4, 1, 192)
        assert chunk["pixel_attention_mask"].sum() == 0

    def test_a_mismatched_row_really_is_one(self, tiny_processor: AceBertProcessor) -> None:
        rows = product_rows(16)
        data = PretrainingDataset(Dataset.from_list([{**row, "image": None} for row in rows]), Columns(), None)
        items = [data[i] | {"image": row["image"], "hot_query": None} for i, row in enumerate(rows)]
        collate = MaskingCollator(tiny_processor, data, 0.0, 0.0, mismatch_probability=1.0)
        batch = collate(items)
        plain = tiny_processor(text=[r["title"] for r in rows], images=[r["image"] for r in rows], return_tensors="pt")
        width = plain["pixel_values"].shape[1]
        same = [torch.equal(batch["pixel_values"][i][:width], plain["pixel_values"][i]) for i in range(16)]
        # Another product may have an equal photo, but a row labelled as matching always keeps its own.
        assert all(kept for kept, label in zip(same, batch["matching_labels"].tolist(), strict=True) if label == 1)
        assert sum(same) < 8


def test_workers_that_stay_see_the_next_epoch(tiny_processor: AceBertProcessor) -> None:
    """They hold a copy of the dataset, made before the first epoch."""
    products = Dataset.from_list([{**row, "image": None} for row in product_rows(8)])
    data = PairDataset(products, Columns(attributes=["colour"]), QueryTemplates(["{colour}"]))
    collate = PairCollator(tiny_processor, dataset=data)
    loader = DataLoader(data, batch_size=8, collate_fn=collate, num_workers=1, persistent_workers=True)
    seen = []
    for epoch in range(3):
        data.set_epoch(epoch)
        seen += [next(iter(loader))["queries"], collate([data[row] for row in range(8)])["queries"]]
    assert seen[::2] == seen[1::2]
