"""Collators: from rows of a training dataset to a batch of tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from acebert.data.batching import length_keys, select_rows, split_by_modalities, trim_padding
from acebert.data.cleaning import SKIP
from acebert.data.open_texts import OpenTexts
from acebert.data.pairs import PairDataset, PretrainingDataset
from acebert.image_processing_acebert import RAW_PATCHES

# Rows in a micro-batch on a CPU: its caches hold little more, and less padding is less time.
CPU_CHUNK = 64
FIX_QUERY = "Fix it in the file or the column that it comes from."  # a bad query makes no bad row


def process_named(
    process: Callable[..., Any], names: Sequence[str], remedy: str, **fields: list[Any]
) -> dict[str, torch.Tensor]:
    """The processor's tensors of a batch, or an error that names the item at fault.

    Args:
        process: a method of the processor.
        names: names of the items; an error starts with one.
        remedy: what to do; an error ends with it.
        fields: arguments of the method, each with one entry for each item.

    Raises:
        ValueError: for an item that the processor can't read.
    """
    try:
        return dict(process(**fields, return_tensors="pt"))
    except ValueError:
        for index, name in enumerate(names):
            try:
                process(**{field: [values[index]] for field, values in fields.items()})
            except ValueError as error:
                what = str(error).replace("images[0]", "the photo").replace("[0]", "", 1)
                raise ValueError(f"{name}: {what}. {remedy}") from error
        raise


def name_rows(rows: list[dict[str, Any]]) -> list[str]:
    return [f"Product {row['id']!r} (row {row['row']})" for row in rows]


def _process(
    processor: Any, rows: list[dict[str, Any]], fields: dict[str, list[Any]], **options: Any
) -> dict[str, torch.Tensor]:
    """The processor's tensors of a batch of products, by its options for photos.

    A batch without any photo gets one padding patch for each product, since data parallelism needs all processes to use
    the same weights in every step.
    """
    inputs = process_named(partial(processor.process_products, **options), name_rows(rows), SKIP, **fields)
    if "pixel_values" not in inputs:
        width = 3 * processor.image_processor.patch_size**2
        inputs["pixel_values"] = torch.zeros(len(rows), 1, width)
        inputs["pixel_attention_mask"] = inputs["pixel_position_ids"] = torch.zeros(len(rows), 1, dtype=torch.long)
        inputs["spatial_shapes"] = torch.zeros(len(rows), 2, dtype=torch.long)
    return inputs


def process_with_vectors(
    processor: Any, names: Sequence[str], titles: Sequence[str | None], image_embeds: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The model's inputs of products whose photos were encoded before.

    Args:
        processor: makes the tensors of the titles.
        names: of the products; an error starts with one.
        titles: None for a product without one.
        image_embeds: (products, dim), 0 for a product without a photo.
    """
    shown = [row for row, title in enumerate(titles) if title is not None]
    fields = {"titles": [titles[row] for row in shown]}
    texts = process_named(processor.process_products, [names[row] for row in shown], SKIP, **fields) if shown else {}
    tokens = texts["input_ids"].shape[1] if shown else 2
    tokenizer = processor.tokenizer
    # [CLS] [SEP] alone is the title of a product that has none.
    input_ids = torch.full((len(titles), tokens), tokenizer.pad_token_id)
    input_ids[:, 0], input_ids[:, 1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    attention_mask = torch.zeros_like(input_ids)
    attention_mask[:, :2] = 1
    if shown:
        input_ids[shown], attention_mask[shown] = texts["input_ids"], texts["attention_mask"]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "image_embeds": image_embeds}


@dataclass
class PairCollator:
    """Makes the arguments of `AceBertForRetrieval.forward`, in micro-batches, and of `find_positives` from pairs.

    Patches come as bytes, which `AceBertImageProcessor.normalize_patches` normalises on the device.

    The micro-batches are length-bucketed: queries are sorted by length, and products by what they show (photo, title,
    both) and by length. So the query and the product in one row of a micro-batch are no pair: `query_order` and
    `product_order` put the vectors of all micro-batches ("chunks") back into the order of the rows.

    Args:
        processor: makes the tensors.
        chunk_size: maximum rows in a micro-batch.
        drop_patch_probability: probability of dropping each patch, in [0, 1], as in FLIP (Li et al. 2023, arXiv
            2212.00794, section 3). At least one patch of a photo stays.
        seed: random seed, combined with epoch and rows. The epoch is read from `dataset`.
        dataset: where the rows come from; needed for what is drawn.
        patch_budgets: maximum patches of a photo, one of which is drawn for each batch (as FlexiViT draws patch sizes,
            Beyer et al. 2023, arXiv 2212.08013, section 3.2); empty for the processor's own maximum.
        open_texts: draws the texts that keep an encoder near its backbone, one for every fourth row; as many titles of
            the batch are anchored, too. The batch then has them under "anchor".
    """

    processor: Any
    chunk_size: int = CPU_CHUNK
    drop_patch_probability: float = 0.0
    seed: int = 0
    dataset: PairDataset | None = None
    patch_budgets: Sequence[int] = ()
    open_texts: OpenTexts | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        texts = [row["query"] for row in rows]
        queries = process_named(self.processor.process_queries, name_rows(rows), FIX_QUERY, queries=texts)
        titles, images = [row["title"] for row in rows], [row["image"] for row in rows]
        rng = np.random.default_rng((self.seed, self.dataset.epoch if self.dataset else 0, rows[0]["row"], len(rows)))
        if self.dataset is not None and self.dataset.image_embeds is not None:
            none = torch.zeros(self.dataset.image_embeds.shape[1])
            vectors = torch.stack([none if image is None else image for image in images])
            products = process_with_vectors(self.processor, name_rows(rows), titles, vectors)
        else:
            budget = {"max_num_patches": int(rng.choice(self.patch_budgets))} if self.patch_budgets else {}
            products = _process(self.processor, rows, {"titles": titles, "images": images}, **RAW_PATCHES, **budget)
            if self.drop_patch_probability:
                drop_patches(products, self.drop_patch_probability, rng)
        queries = {f"query_{name}": value for name, value in queries.items()}

        words = products["attention_mask"].sum(1)
        patches = products["pixel_attention_mask"].sum(1) if "pixel_attention_mask" in products else 0 * words
        shown = torch.tensor(
            [2 * (title is not None) + (image is not None) for title, image in zip(titles, images, strict=True)]
        )
        parts = split_by_modalities(shown, length_keys(words, patches), self.chunk_size)
        product_order = torch.cat(parts)
        query_order = queries["query_attention_mask"].sum(1).argsort(stable=True)
        chunks = [
            trim_padding(select_rows(queries, query_part) | select_rows(products, part))
            for query_part, part in zip(query_order.split([len(part) for part in parts]), parts, strict=True)
        ]
        batch = {"chunks": chunks, "query_order": query_order.argsort(), "product_order": product_order.argsort()}
        batch |= {"queries": texts, "titles": titles}
        for name in ("product_id", "query_id", "from_title"):
            batch[f"{name}s"] = torch.tensor([int(row[name]) for row in rows])
        for name in ("product_attributes", "query_attributes"):
            batch[name] = torch.from_numpy(np.stack([row[name] for row in rows]))
        if "weight" in rows[0]:
            batch["weights"] = torch.tensor([row["weight"] for row in rows])
        if self.open_texts is not None:
            batch["anchor"] = self._anchor(rows, rng)
        return batch

    def _anchor(self, rows: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
        """Open texts as queries and titles as products: the model's inputs, and the texts for their teacher."""
        assert self.open_texts is not None
        count = max(1, len(rows) // 4)
        texts = self.open_texts.draw(count, rng)
        titles = [row["query"] if row["from_title"] else row["title"] for row in rows]
        titles = [title for title in titles if title is not None][:count] or texts
        queries = self.processor.process_queries(queries=texts, return_tensors="pt")
        products = self.processor.process_products(titles=titles, return_tensors="pt")
        inputs = {f"query_{name}": value for name, value in queries.items()} | dict(products)
        return {"inputs": inputs, "queries": texts, "titles": titles}


def drop_patches(products: dict[str, torch.Tensor], probability: float, rng: np.random.Generator) -> None:
    """Drops patches at random, in place. Those that stay move to the front of their row, in their order."""
    mask = products["pixel_attention_mask"].bool()
    draws = torch.from_numpy(rng.random(mask.shape)).masked_fill(~mask, 2.0)
    # The patch with the highest draw always stays: a photo without patches would be none.
    kept = mask & ((draws >= probability) | (draws == draws.masked_fill(~mask, -1.0).amax(1, keepdim=True)))
    order = (~kept).int().argsort(dim=1, stable=True)
    positions = products["pixel_position_ids"].gather(1, order)
    values = products["pixel_values"].gather(1, order[..., None].expand_as(products["pixel_values"]))
    kept = kept.gather(1, order)
    products["pixel_values"] = values.masked_fill(~kept[..., None], 0)
    products["pixel_position_ids"] = positions.masked_fill(~kept, 0)
    products["pixel_attention_mask"] = kept.to(products["pixel_attention_mask"].dtype)


@dataclass
class MaskingCollator:
    """Makes the arguments of `AceBertForPreTraining.forward` from rows of [`PretrainingDataset`].

    Words are masked as in BERT (Devlin et al. 2019, arXiv 1810.04805, section 3.1): 80 % become [MASK], 10 % a random
    word, 10 % stay. Patches are masked at random. In a share of the rows the photo or the hot query is another row's.

    Args:
        processor: makes the tensors.
        dataset: where the rows come from.
        mlm_probability: share of the words to predict, in [0, 1].
        patch_mask_probability: share of the patches to predict, in [0, 1].
        mismatch_probability: share of the rows to draw a photo or a hot query of another row for, in [0, 1].
        seed: random seed, combined with epoch and rows. The epoch is read from `dataset`.
    """

    processor: Any
    dataset: PretrainingDataset
    mlm_probability: float = 0.15
    patch_mask_probability: float = 0.5
    mismatch_probability: float = 0.25
    seed: int = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, self.dataset.epoch, rows[0]["row"], len(rows)))
        groups = [self.dataset.groups[row["row"]] for row in rows]
        images, hot_queries = [row["image"] for row in rows], [row["hot_query"] for row in rows]
        matching = np.ones(len(rows), dtype=np.int64)
        for i in np.flatnonzero(rng.random(len(rows)) < self.mismatch_probability):
            j = int(rng.integers(len(rows)))
            part = hot_queries if rows[i]["hot_query"] is not None and rng.random() < 0.5 else images
            other = rows[j]["hot_query" if part is hot_queries else "image"]
            if groups[i] == groups[j] or other is None or part[i] is None:
                continue
            asked, has = rows[j]["query_attributes"], self.dataset.codes[rows[i]["row"]]
            if part is hot_queries and (asked >= 0).any() and ((asked < 0) | (asked == has)).all():
                continue  # another product's query, but true of this one
            part[i], matching[i] = other, 0
        titles = [row["title"] for row in rows]
        batch = _process(self.processor, rows, {"titles": titles, "images": images, "hot_queries": hot_queries})
        batch["input_ids"], batch["labels"] = self._mask_words(batch["input_ids"], rng)
        hidden = rng.random(batch["pixel_attention_mask"].shape) < self.patch_mask_probability
        batch["bool_masked_pos"] = torch.from_numpy(hidden) & batch["pixel_attention_mask"].bool()
        batch["matching_labels"] = torch.from_numpy(matching)
        return batch

    def _mask_words(self, input_ids: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        tokenizer = self.processor.tokenizer
        ids = input_ids.numpy().copy()
        special = np.isin(ids, tokenizer.all_special_ids)
        chosen = (rng.random(ids.shape) < self.mlm_probability) & ~special
        labels = np.where(chosen, ids, -100)
        kind = rng.random(ids.shape)
        ids[chosen & (kind < 0.8)] = tokenizer.mask_token_id
        random_word = chosen & (kind >= 0.8) & (kind < 0.9)
        ids[random_word] = rng.integers(len(tokenizer), size=int(random_word.sum()))
        return torch.from_numpy(ids), torch.from_numpy(labels)


@dataclass
class QueryCollator:
    """Makes length-bucketed micro-batches ("chunks") of queries that rank the same modalities from [`QueryDataset`].

    Args:
        processor: makes the tensors.
        chunk_size: maximum queries in a micro-batch.
    """

    processor: Any
    chunk_size: int = CPU_CHUNK

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, list[dict[str, torch.Tensor]]]:
        texts = [row["query"] for row in rows]
        inputs = process_named(self.processor.process_queries, name_rows(rows), FIX_QUERY, queries=texts)
        inputs = {f"query_{name}": value for name, value in inputs.items()}
        for name in ("product_id", "query_id", "from_title", "modalities"):
            inputs[name] = torch.tensor([int(row[name]) for row in rows])
        inputs["query_attributes"] = torch.from_numpy(np.stack([row["query_attributes"] for row in rows]))
        parts = split_by_modalities(inputs["modalities"], [inputs["query_attention_mask"].sum(1)], self.chunk_size)
        return {"chunks": [trim_padding(select_rows(inputs, part)) for part in parts]}
