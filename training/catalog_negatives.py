"""The whole catalogue as frozen vectors, which query-side fine-tuning contrasts every query with."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import broadcast

from acebert.data.corpus import Corpus
from acebert.data.grouping import hash_text
from acebert.data.pairs import MODALITIES, QueryDataset
from acebert.encoding.corpus_encoder import CorpusEncoder


@dataclass
class CatalogNegatives:
    """Vectors of a catalogue's products by the modalities that they show, and what they answer.

    Args:
        vectors: for each of `MODALITIES` the vectors of the products that show it, once for each width: whole, and cut
            to each of the model's `matryoshka_dims`; each (products, width) of unit length.
        rows: for each of `MODALITIES` the numbers of these products.
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
    def encode(cls, data: QueryDataset, encoder: CorpusEncoder, name: str) -> "CatalogNegatives":
        """Encodes all products with each of `MODALITIES`, but for what the encoder's cache holds.

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
        catalog = Corpus(
            name=name,
            ids=[ids[row] for row in kept],
            titles=[data.titles[row] for row in kept],
            photos=None if data.photos is None else data.photos.select(kept),
            attributes={},
            splits=[name] * len(kept),
        )
        model, device = encoder.model, encoder.accelerator.device
        vectors, rows = [], []
        for modalities in MODALITIES:
            shown = torch.from_numpy(np.flatnonzero(catalog.shows(modalities)))
            whole = torch.zeros(len(catalog), model.config.projection_dim)
            if len(shown):  # what no product has is never ranked
                encoded = encoder.encode_products(catalog, modalities)
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

    def join(self, other: "CatalogNegatives") -> "CatalogNegatives":
        """Both catalogues' products, this one's first; queries are drawn from the other."""
        n = self.num_groups
        answering = {text: set(groups) for text, groups in self.answering.items()}
        for text, groups in other.answering.items():
            answering[text] = answering.get(text, set()) | {group + n for group in groups}
        return CatalogNegatives(
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
            chunk: its queries all rank the same modalities.

        Returns:
            The vectors by width, each (products, width), and (queries, products) booleans.
        """
        modalities = int(chunk["modalities"][0])
        rows = self.rows[modalities]
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
        return self.vectors[modalities], answers | has_all
