"""The last stage of training: the query encoder alone, against the vectors of a whole catalogue.

The product side stays as it is, so every product is encoded once, before the first step; a step then costs its queries
and one product of matrices. All products of the catalogue are negatives, where a batch has but a few hundred, and an
index that was built with the checkpoint stays valid.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import broadcast

from .checking_acebert import read_photo
from .corpus_acebert import Catalog
from .data_acebert import (
    MEND_QUERY,
    SKIP,
    ProductPairs,
    hash_text,
    name_rows,
    process_named,
    select_rows,
    split_by_sides,
    trim_padding,
)
from .encoding_acebert import Encoder

# What products show, by number. The first stands for all that a product has, whichever side it lacks.
SIDES = (("title", "image"), ("title",), ("image",))


class ProductQueries(ProductPairs):
    """Draws a query for each row of a catalogue, and which sides of the products are ranked for it.

    As [`ProductPairs`], but photos are never decoded, and a share of the queries asks for attribute values that are
    drawn among all that the catalogue has: a template and those of its attributes that are kept, then one of the
    combinations of values that some product has, with equal chances. Drawn row by row, a value that ten products have
    would hardly ever be asked for. A template with words of its own states its attributes as any other does: it would
    ask the same of all products that have them, so they all answer.

    Args:
        balanced_query_probability: of such a draw, among the queries that are no titles, in [0, 1].
        others: of [`ProductPairs`].
    """

    strict_templates = False

    def __init__(self, *others: Any, balanced_query_probability: float = 0.0, **named: Any):
        super().__init__(*others, **named)
        self.balanced_query_probability = balanced_query_probability
        self.has_photo = [False] * len(self)
        if self.photos is not None:
            self.has_photo = [read_photo(photo) is not None for photo in self.photos[self.columns.image]]
        for row, (title, photo) in enumerate(zip(self.titles, self.has_photo, strict=True)):
            if title is None and not photo:
                raise ValueError(f"Product {self.ids[row]!r} (row {row}) has neither a title nor a photo. {SKIP}")
        self._rows_by_values: dict[tuple[str, ...], list[np.ndarray]] = {}

    def rows_by_values(self, names: tuple[str, ...]) -> list[np.ndarray]:
        """For each combination of values of these attributes that some product has, the rows that have it."""
        if names not in self._rows_by_values:
            codes = self.codes[:, [self.attribute_names.index(name) for name in names]]
            rows = np.flatnonzero((codes >= 0).all(1))
            number = np.unique(codes[rows], axis=0, return_inverse=True)[1].ravel()
            order = np.argsort(number, kind="stable")
            parts = np.split(rows[order], np.flatnonzero(np.diff(number[order])) + 1)
            self._rows_by_values[names] = parts if len(rows) else []
        return self._rows_by_values[names]

    def _draw_combination(self, rng: np.random.Generator) -> tuple[int, str, list[str]] | None:
        """A row, and a query for what it shares with others; None if no product has the attributes drawn."""
        assert self.templates is not None
        index = int(rng.integers(len(self.templates.templates)))
        kept = self.templates.keep(index, rng, self.templates.fields[index])
        combinations = self.rows_by_values(tuple(kept))
        if not combinations:
            return None
        row = int(rng.choice(combinations[rng.integers(len(combinations))]))
        product = {name: values[row] for name, values in self.attributes.items()}
        return row, self.templates.phrase(index, product, kept), kept

    def __getitem__(self, row: int) -> dict[str, Any]:
        rng = self.rng(row)
        asks_by_title = rng.random() < self.title_query_probability
        from_title = asks_by_title and self.titles[row] is not None and self.has_photo[row]
        combination = None
        if not from_title and self.templates is not None and rng.random() < self.balanced_query_probability:
            combination = self._draw_combination(rng)
        if combination:
            row, query, stated = combination
            title, photo = self.draw_sides(row, rng, self.has_photo[row] or None)
        else:
            query, stated, title, photo = self.draw(row, rng, self.has_photo[row] or None, from_title)
        has_both = self.titles[row] is not None and self.has_photo[row]
        sides = 0 if not has_both or (title and photo) else 1 if title else 2
        return {**self.item(row, query, stated, title, photo), "sides": sides}

    def id_of(self, row: int) -> Any:
        return self[row]["id"]


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
        parts = split_by_sides(inputs["sides"], [inputs["query_attention_mask"].sum(1)], self.chunk_size)
        return {"chunks": [trim_padding(select_rows(inputs, part)) for part in parts]}


@dataclass
class RankedProducts:
    """Vectors of a catalogue's products by the sides that they show, and what they answer.

    Args:
        vectors: for each of `SIDES` the vectors of the products that show it, once for each width: whole, and cut to
            each of the model's `matryoshka_dims`; each (products, width) of unit length.
        rows: for each of `SIDES` the numbers of these products.
        groups: (products,) integers: products of one group share an id or a title.
        answering: for each [`hash_text`] of a title, query or hot query the groups that have it.
        attributes: (products, attributes) integer codes, -1 where the product has no value.
        num_groups: all groups' numbers are below.
        first_group: the number of the first group of the catalogue that queries are drawn from.
    """

    vectors: list[list[torch.Tensor]]
    rows: list[torch.Tensor]
    groups: torch.Tensor
    answering: Mapping[int, set[int]]
    attributes: torch.Tensor
    num_groups: int
    first_group: int = 0

    @classmethod
    def encode(cls, data: ProductQueries, encoder: Encoder, name: str) -> "RankedProducts":
        """Encodes all products with each of `SIDES`, but for what the encoder's cache holds.

        Rows that share an id are one product, as in a log of queries: the first of those that have most to show is
        ranked, has what values they lack from the others, and answers what any of them does.

        Args:
            data: of the catalogue.
            encoder: of the model whose query side is trained.
            name: of the catalogue, for the progress bar.
        """
        num_shown = np.array([title is not None for title in data.titles], dtype=int) + data.has_photo
        order = np.argsort(-num_shown, kind="stable")
        ids = [str(product_id) for product_id in data.ids]
        _, first, products = np.unique([ids[row] for row in order], return_index=True, return_inverse=True)
        kept = order[first]
        codes = np.full((len(kept), data.codes.shape[1]), -1, dtype=np.int64)
        for row, product in zip(order[::-1], products[::-1], strict=True):  # the kept row's own values win
            codes[product] = np.where(data.codes[row] >= 0, data.codes[row], codes[product])
        catalog = Catalog(
            name=name,
            ids=[ids[row] for row in kept],
            titles=[data.titles[row] for row in kept],
            photos=None if data.photos is None else data.photos.select(kept),
            attributes={},
            splits=[name] * len(kept),
        )
        model, device = encoder.model, encoder.accelerator.device
        vectors, rows = [], []
        for sides in SIDES:
            shown = torch.from_numpy(np.flatnonzero(catalog.shows(sides)))
            whole = torch.zeros(len(catalog), model.config.projection_dim)
            if len(shown):  # a side that no product has is never ranked
                encoded = encoder.products(catalog, sides)
                whole = broadcast((encoded if encoder.accelerator.is_main_process else whole).to(device))
            widths = (whole.shape[1], *(model.config.matryoshka_dims or []))
            vectors.append([F.normalize(whole[shown.to(device), :width], dim=-1) for width in widths])
            rows.append(shown.to(device))
        answering: dict[int, set[int]] = defaultdict(set)
        for texts in (data.titles, data.queries, data.hot_queries):
            for text, group in zip(texts, data.groups.tolist(), strict=True):
                if text is not None:
                    answering[hash_text(text)].add(group)
        groups, attributes = (torch.from_numpy(values).to(device) for values in (data.groups[kept], codes))
        return cls(vectors, rows, groups, answering, attributes, len(data))

    def join(self, other: "RankedProducts") -> "RankedProducts":
        """Both catalogues' products, this one's first; queries are drawn from the other."""
        n = self.num_groups
        answering = {text: set(groups) for text, groups in self.answering.items()}
        for text, groups in other.answering.items():
            answering[text] = answering.get(text, set()) | {group + n for group in groups}
        return RankedProducts(
            [
                [torch.cat(both) for both in zip(*widths, strict=True)]
                for widths in zip(self.vectors, other.vectors, strict=True)
            ],
            [torch.cat([own, theirs + len(self.groups)]) for own, theirs in zip(self.rows, other.rows, strict=True)],
            torch.cat([self.groups, other.groups + n]),
            answering,
            torch.cat([self.attributes, other.attributes]),
            n + other.num_groups,
            first_group=n,
        )

    def ranked_for(self, chunk: Mapping[str, torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The products that are ranked for a chunk of [`QueryCollator`], and which of them answer each query.

        A product answers a query that is drawn from its group, that is the title, query or hot query of one of its
        group, or whose stated attributes it has, all of them.

        Args:
            chunk: its queries all rank the same sides.

        Returns:
            The vectors by width, each (products, width), and (queries, products) booleans.
        """
        sides = int(chunk["sides"][0])
        rows = self.rows[sides]
        own = (chunk["product_id"] + self.first_group).tolist()
        by_group = torch.zeros(len(own), self.num_groups, dtype=torch.bool)
        for found, group, text in zip(by_group, own, chunk["query_id"].tolist(), strict=True):
            found[[group, *self.answering.get(text, ())]] = True
        answers = by_group.to(rows.device)[:, self.groups[rows]]
        asked = chunk["query_attributes"]
        # One attribute at a time: all at once would hold a boolean for each query, product and attribute.
        has_all = (asked >= 0).any(1)[:, None].expand_as(answers).clone()
        for wanted, has in zip(asked.T, self.attributes[rows].T, strict=True):
            has_all &= (wanted[:, None] == has) | (wanted < 0)[:, None]
        return self.vectors[sides], answers | has_all


def answer_loss(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Minus the logarithm of the answers' share of a softmax over all products, mean over the queries.

    MIL-NCE (Miech et al. 2020, arXiv 1912.06430, equation 1), with any number of answers: a query that thousands answer
    need not be near to all of them, as with a mean over answers, but has to have nothing else before them.

    Args:
        logits: (queries, products) scaled cosines.
        answers: (queries, products) booleans, at least one in each row.
    """
    return (logits.logsumexp(1) - logits.masked_fill(~answers, float("-inf")).logsumexp(1)).mean()


def matryoshka_answer_loss(
    query_embeds: torch.Tensor, products: Sequence[torch.Tensor], answers: torch.Tensor, scale: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """[`answer_loss`], mean over the widths (Kusupati et al. 2022, arXiv 2205.13147), and what is ranked first.

    Args:
        query_embeds: (queries, projection_dim).
        products: unit vectors by width, each (products, width), the whole ones first.
        answers: (queries, products) booleans.
        scale: inverse temperature.

    Returns:
        The loss, and (queries,) numbers of the products nearest to the whole vectors.
    """
    logits = [scale * F.normalize(query_embeds[:, : cut.shape[1]].float(), dim=-1) @ cut.t() for cut in products]
    return torch.stack([answer_loss(each, answers) for each in logits]).mean(), logits[0].argmax(1)
