"""The last stage of training: the query encoder alone, against the vectors of a whole catalogue.

The product side stays as it is, so every product is encoded once, before the first step, and a step costs no more than
its queries. All products of the catalogue are then negatives, where a batch has but a few hundred, and an index that
was built with the checkpoint stays valid.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file, save_file

from .checking_acebert import read_photo
from .checkpoints_acebert import UNFINISHED
from .data_acebert import (
    MEND_QUERY,
    ProductPairs,
    WholeProducts,
    hash_text,
    name_rows,
    process_named,
    select_rows,
    trim_padding,
)

# What products show, by number. The first stands for all that a product has, whichever side it lacks.
SIDES = (("title", "image"), ("title",), ("image",))


class ProductQueries(ProductPairs):
    """Draws a query for each row of a catalogue, and which sides of the products are ranked for it.

    As [`ProductPairs`], but photos are never opened, and a share of the queries asks for attribute values that are
    drawn among all that the catalogue has: a template and those of its attributes that are kept, then one of the
    combinations of values that some product has, with equal chances. Drawn row by row, a value that ten products have
    would hardly ever be asked for.

    Args:
        balanced_query_probability: of such a draw, among the queries that are no titles, in [0, 1].
        others: of [`ProductPairs`].
    """

    def __init__(self, *others: Any, balanced_query_probability: float = 0.0, **named: Any):
        super().__init__(*others, **named)
        self.balanced_query_probability = balanced_query_probability
        self.has_photo = [False] * len(self)
        if self.photos is not None:
            self.has_photo = [read_photo(photo) is not None for photo in self.photos[self.columns.image]]
        templates = self.templates
        # A template with words of its own may ask for more than its attributes: nobody knows what else answers it.
        self.askable = [] if templates is None else [i for i, words in enumerate(templates.has_words) if not words]
        self.combinations = cache(self._combinations)

    def _combinations(self, names: tuple[str, ...]) -> list[np.ndarray]:
        """For each combination of values of these attributes that some product has, the rows that have it."""
        codes = self.codes[:, [self.attribute_names.index(name) for name in names]]
        rows = np.flatnonzero((codes >= 0).all(1))
        number = np.unique(codes[rows], axis=0, return_inverse=True)[1].ravel()
        order = np.argsort(number, kind="stable")
        return np.split(rows[order], np.flatnonzero(np.diff(number[order])) + 1) if len(rows) else []

    def _draw_combination(self, rng: np.random.Generator) -> tuple[int, str, list[str]] | None:
        """A row, and a query for what it shares with others; None if no product has the attributes drawn."""
        assert self.templates is not None
        index = self.askable[rng.integers(len(self.askable))]
        kept = self.templates.keep(index, rng, self.templates.fields[index])
        combinations = self.combinations(tuple(kept))
        if not combinations:
            return None
        row = int(rng.choice(combinations[rng.integers(len(combinations))]))
        product = {name: values[row] for name, values in self.attributes.items()}
        return row, self.templates.phrase(index, product, kept), kept

    def __getitem__(self, row: int) -> dict[str, Any]:
        rng = self.rng(row)
        from_title, combination = rng.random() < self.title_query_probability, None
        if not from_title and self.askable and rng.random() < self.balanced_query_probability:
            combination = self._draw_combination(rng)
        if combination:
            row, query, stated = combination
            title, photo = self.draw_sides(row, rng, self.has_photo[row] or None)
        else:
            query, stated, title, photo = self.draw(row, rng, self.has_photo[row] or None, from_title)
        has_both = self.titles[row] is not None and self.has_photo[row]
        sides = 0 if not has_both or (title and photo) else 1 if title else 2
        return {**self.item(row, query, stated, title, photo), "sides": sides}


@dataclass
class QueryCollator:
    """Rows of [`ProductQueries`] to chunks of queries that rank the same sides and are about equally long.

    Args:
        processor: makes the tensors.
        chunk_size: queries in one chunk, at most.
    """

    processor: Any
    chunk_size: int = 64

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, list[dict[str, torch.Tensor]]]:
        texts = [row["query"] for row in rows]
        inputs = process_named(self.processor.process_queries, name_rows(rows), MEND_QUERY, queries=texts)
        inputs = {f"query_{name}": value for name, value in inputs.items()}
        for name in ("product_id", "query_id", "from_title", "sides"):
            inputs[name] = torch.tensor([int(row[name]) for row in rows])
        inputs["query_attributes"] = torch.from_numpy(np.stack([row["query_attributes"] for row in rows]))
        order = torch.from_numpy(np.lexsort((inputs["query_attention_mask"].sum(1), inputs["sides"])))
        groups = order.split(torch.unique(inputs["sides"], return_counts=True)[1].tolist())
        parts = [part for group in groups for part in group.tensor_split(math.ceil(len(group) / self.chunk_size))]
        return {"chunks": [trim_padding(select_rows(inputs, part)) for part in parts]}


@dataclass
class RankedProducts:
    """Vectors of a catalogue's products by the sides that they show, and what they answer.

    Args:
        vectors: for each of `SIDES` (products, projection_dim) unit vectors of those that show it.
        rows: for each of `SIDES` the numbers of these products.
        product_ids: (rows,) integers; rows that share one are the same product.
        texts: (rows, 3) integers of [`hash_text`]: the title, the query and the hot query, -1 where there is none.
        attributes: (rows, attributes) integer codes, -1 where the product has no value.
    """

    vectors: list[torch.Tensor]
    rows: list[torch.Tensor]
    product_ids: torch.Tensor
    texts: torch.Tensor
    attributes: torch.Tensor

    @classmethod
    def encode(
        cls, data: ProductQueries, encode: Callable[[WholeProducts], Mapping[str, torch.Tensor]], folder: Path
    ) -> "RankedProducts":
        """Encodes all products with each of `SIDES`, but for what `folder` holds from before.

        Args:
            data: of the catalogue.
            encode: gives the `product_embeds` of products, (products, projection_dim) unit vectors, to every process.
            folder: keeps the vectors, which the main process writes.
        """
        state = PartialState()
        has = {"title": np.array([title is not None for title in data.titles]), "image": np.array(data.has_photo)}
        vectors, rows = [], []
        for sides in SIDES:
            shown = np.flatnonzero(np.logical_or.reduce([has[side] for side in sides]))
            file = folder / f"{'-'.join(sides)}.safetensors"
            # The main process looks, so that all do the same even where they don't share a disk.
            found = load_file(file)["vectors"] if state.is_main_process and file.exists() else None
            found = broadcast_object_list([found])[0]
            if found is None:
                # A side that no product has is never ranked.
                found = (
                    encode(WholeProducts(data, sides, shown.tolist()))["product_embeds"]
                    if len(shown)
                    else torch.empty(0)
                )
                if state.is_main_process:
                    folder.mkdir(parents=True, exist_ok=True)
                    unfinished = file.with_suffix(UNFINISHED)
                    save_file({"vectors": found.cpu().contiguous()}, unfinished)
                    unfinished.replace(file)
            vectors.append(found.to(state.device))
            rows.append(torch.from_numpy(shown).to(state.device))
        texts = [data.titles, data.queries, data.hot_queries]
        hashes = np.array([[-1 if text is None else hash_text(text) for text in column] for column in texts]).T
        known = (data.groups, hashes, data.codes)
        return cls(
            vectors, rows, *(torch.from_numpy(np.ascontiguousarray(values)).to(state.device) for values in known)
        )

    def join(self, other: "RankedProducts") -> "RankedProducts":
        """Both catalogues' products, this one's first."""
        n = len(self.product_ids)
        return RankedProducts(
            [torch.cat(both) for both in zip(self.vectors, other.vectors, strict=True)],
            [torch.cat([own, theirs + n]) for own, theirs in zip(self.rows, other.rows, strict=True)],
            torch.cat([self.product_ids, other.product_ids + n]),
            torch.cat([self.texts, other.texts]),
            torch.cat([self.attributes, other.attributes]),
        )

    def ranked_for(self, chunk: Mapping[str, torch.Tensor], offset: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """The products that are ranked for a chunk of [`QueryCollator`], and which of them answer each query.

        A product answers a query that is drawn from it or from a row of the same product, that is its title, query or
        hot query, or whose stated attributes it has, all of them.

        Args:
            chunk: its queries all rank the same sides.
            offset: added to the chunk's product ids: the number of products before those that it is drawn from.

        Returns:
            (products, projection_dim) vectors and (queries, products) booleans.
        """
        sides = int(chunk["sides"][0])
        rows = self.rows[sides]
        answers = chunk["product_id"][:, None] + offset == self.product_ids[rows]
        for text in self.texts[rows].T:
            answers |= chunk["query_id"][:, None] == text
        asked = chunk["query_attributes"]
        # One attribute at a time: all at once would hold a boolean for each query, product and attribute.
        has_all = (asked >= 0).any(1)[:, None].expand_as(answers).clone()
        for wanted, has in zip(asked.T, self.attributes[rows].T, strict=True):
            has_all &= (wanted[:, None] == has) | (wanted < 0)[:, None]
        return self.vectors[sides], answers | has_all


def answer_loss(
    query_embeds: torch.Tensor, product_embeds: torch.Tensor, answers: torch.Tensor, scale: torch.Tensor | float
) -> torch.Tensor:
    """Minus the logarithm of the answers' share of a softmax over all products, mean over the queries.

    MIL-NCE (Miech et al. 2020, arXiv 1912.06430, equation 1), with any number of answers: a query that thousands answer
    need not be near to all of them, as with a mean over answers, but has to have nothing else before them.

    Args:
        query_embeds: (queries, width) unit vectors.
        product_embeds: (products, width) unit vectors.
        answers: (queries, products) booleans, at least one in each row.
        scale: inverse temperature.
    """
    logits = scale * query_embeds @ product_embeds.t()
    return (logits.logsumexp(1) - logits.masked_fill(~answers, float("-inf")).logsumexp(1)).mean()


def matryoshka_answer_loss(
    query_embeds: torch.Tensor, product_embeds: torch.Tensor, answers: torch.Tensor, model: Any
) -> torch.Tensor:
    """[`answer_loss`] as the mean over full width and the model's `matryoshka_dims`, at its temperature."""
    widths = (model.config.projection_dim, *(model.config.matryoshka_dims or []))
    losses = [
        answer_loss(
            F.normalize(query_embeds[:, :width].float(), dim=-1),
            F.normalize(product_embeds[:, :width], dim=-1),
            answers,
            model.scale.detach(),
        )
        for width in widths
    ]
    return torch.stack(losses).mean()
