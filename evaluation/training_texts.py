"""What a checkpoint was trained on, as far as slices and trained baselines need it."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import datasets

from acebert.data.cleaning import read_texts
from acebert.data.columns import Columns
from acebert.data.query_templates import QueryTemplates
from acebert.utils.tokenization import tokenize


@dataclass(frozen=True, eq=False)
class TrainingTexts:
    """What the checkpoint was trained on, as far as slices and trained baselines need it.

    Args:
        products: rows of `load_products`.
        columns: which column holds what.
        templates: make the training queries.
    """

    products: datasets.Dataset
    columns: Columns
    templates: QueryTemplates

    def read(self, column: str | None) -> list[str]:
        return [text for text in read_texts(self.products, column) if text is not None]

    @cached_property
    def title_words(self) -> set[str]:
        """Tokens of all titles. A title is a training query too: ACE-BERT learns to find its photo by it."""
        return {token for title in self.read(self.columns.title) for token in tokenize(title)}

    @cached_property
    def query_words(self) -> set[str]:
        """Tokens of all queries that are no titles: templates over attributes, query logs, hot queries."""
        texts = set(self.read(self.columns.query) + self.read(self.columns.hot_query))
        for template, fields in zip(self.templates.templates, self.templates.fields, strict=True):
            texts.add(template.format(**dict.fromkeys(fields, "")))
        for column in self.templates.attributes:
            texts.update(self.read(column))
        return {token for text in texts for token in tokenize(text)}

    def frequency_bands(self, column: str) -> dict[str, str]:
        """Each value's band by the number of training products that have it.

        Returns:
            Value to "head": the most frequent values, which together first reach half of the products; "torso": those
            that then reach nine in ten; "tail": the rest.
        """
        counts = Counter(self.read(column))
        bands, before = {}, 0
        for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            share = before / counts.total()
            bands[value] = "head" if share < 0.5 else "torso" if share < 0.9 else "tail"
            before += count
        return bands
