"""Synthetic shopper queries, made from attributes by templates."""

import string
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np


class QueryTemplates:
    """Makes shopper-style queries from attributes: `"{gender} {baseColour} {articleType}"`.

    Such queries are synthetic. All attributes of a template but one may be dropped at random, since shoppers rarely
    name them all; an attribute that the product doesn't have is always dropped. A template of attributes alone asks for
    nothing else, so every product that has them is a positive. One with words of its own ("{brand} shoes") may ask for
    more, so only the product that it was filled from is known to be a positive.

    Args:
        templates: strings whose fields are attribute columns.
        drop_probability: probability of dropping each attribute, in [0, 1).

    Raises:
        ValueError: for a template without a field, or with one that is no column's name; naming it.
    """

    def __init__(self, templates: Sequence[str], drop_probability: float = 0.3):
        if isinstance(templates, str) or not all(isinstance(template, str) for template in templates):
            raise ValueError(f"Query templates must be a list of texts, got {templates!r}.")
        if not 0 <= drop_probability < 1:
            raise ValueError(f"`drop_probability` must lie in [0, 1), got {drop_probability}.")
        self.templates = list(templates)
        self.drop_probability = drop_probability
        self.fields: list[list[str]] = []
        self.has_words: list[bool] = []
        for template in self.templates:
            try:
                parts = list(string.Formatter().parse(template))
            except ValueError as error:
                raise ValueError(
                    f"The query template '{template}' can't be read ({error}): write {{column}}."
                ) from None
            fields = [name for _, name, _, _ in parts if name is not None]
            if not fields:
                raise ValueError(f"The query template '{template}' names no attribute: write one as {{column}}.")
            plain = all(name.strip() and not name.isdigit() and not set(name) & set(".[]") for name in fields)
            if not plain or any(spec or conv for _, _, spec, conv in parts):
                raise ValueError(
                    f"The query template '{template}' must name columns plainly, as in {{colour}} or {{colour name}}: "
                    "rename a column of digits, or with one of .[]!:{}."
                )
            self.fields.append(fields)
            self.has_words.append(any(text.strip() for text, _, _, _ in parts))

    @property
    def attributes(self) -> list[str]:
        """All attribute columns that some template names."""
        return list(dict.fromkeys(name for fields in self.fields for name in fields))

    def make(
        self, product: dict[str, Any], rng: np.random.Generator, strict: bool = True
    ) -> tuple[str, list[str]] | None:
        """Returns a query and the attributes that it states; None if there is none.

        Args:
            product: its attributes.
            rng: draws template and attributes.
            strict: state attributes only if the query asks for nothing else. Otherwise a template with words of its
                own states its attributes too, since it makes the same query for every product that has them.
        """
        usable = [i for i, fields in enumerate(self.fields) if any(product.get(name) is not None for name in fields)]
        if not usable:
            return None
        index = usable[rng.integers(len(usable))]
        kept = self.keep(index, rng, [name for name in self.fields[index] if product.get(name) is not None])
        return self.phrase(index, product, kept), [] if strict and self.has_words[index] else kept

    def keep(self, index: int, rng: np.random.Generator, present: Sequence[str]) -> list[str]:
        """Those of a template's attributes that are not dropped: at least one of those that are `present`."""
        kept = [name for name in present if rng.random() >= self.drop_probability]
        return kept or [present[int(rng.integers(len(present)))]]

    def phrase(self, index: int, product: Mapping[str, Any], kept: Collection[str]) -> str:
        """The query of a template that asks for these attributes of the product."""
        values = {name: str(product[name]) if name in kept else "" for name in self.fields[index]}
        return " ".join(self.templates[index].format(**values).split())
