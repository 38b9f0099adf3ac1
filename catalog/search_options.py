"""What a search is asked for, checked: its queries and its options."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from acebert.catalog.boosts import Boost
from acebert.catalog.records import Photo
from acebert.catalog.store import Settings
from acebert.image_processing_acebert import to_numpy
from acebert.processing_acebert import LONE_SURROGATE


@dataclass(frozen=True)
class Options:
    """What [`ProductCatalog.search`] is asked for beside the query; it documents each field."""

    top_k: int
    offset: int
    filters: Mapping[str, Any] | None
    using: str
    exact_words: bool
    correct: bool
    understand: bool
    expand: bool
    as_words: Collection[str]
    group_by: str | None
    min_score: float | None
    sort_by: str | None
    boosts: Mapping[str, Boost]

    @property
    def wanted(self) -> int:
        """Hits up to the end of the page."""
        return self.offset + self.top_k

    def check(self, settings: Settings) -> "Options":
        """Raises ValueError for what can't be asked of a catalogue, naming it; filters are checked where they're read.

        Returns:
            These options.
        """
        for name, number, least in (("top_k", self.top_k, 1), ("offset", self.offset, 0)):
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                what = "a positive integer" if least else "an integer of at least 0"
                raise ValueError(f"{name} must be {what}, got {number!r}.")
        if self.using not in (*settings.vectors, "words"):
            choices = [*settings.vectors, "words"]
            raise ValueError(f"using must be one of {choices} in this catalogue, got {self.using!r}.")
        if isinstance(self.as_words, str):
            raise ValueError(f"as_words must be a list of parts of the text, got {self.as_words[:80]!r}.")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score is a confidence between 0 and 1, got {self.min_score!r}.")
        if self.sort_by is not None:
            numbers = [name for name, kind in settings.attributes.items() if kind in ("integer", "number", "date")]
            if self.sort_by.removeprefix("-") not in numbers:
                raise ValueError(
                    f"sort_by must be one of {numbers}, or '-' and one of them, got {self.sort_by[:80]!r}."
                )
        return self


def read_queries(
    text: Any, image: Any, like: Any, vector: Any, dim: int
) -> tuple[list[str] | None, list[Photo] | None, np.ndarray | None, bool]:
    """The queries of a search as lists.

    Args:
        text, image, like, vector: of [`ProductCatalog.search`].
        dim: numbers that a vector must have.

    Returns:
        Texts, photos, (queries, dim) float32 vectors, None for what wasn't given; and whether it was a single query.

    Raises:
        ValueError: unless there is just one way to search, by queries that can be read.
    """
    given = [
        name
        for name, value in (
            ("text or image", text is not None or image is not None),
            ("like", like is not None),
            ("vector", vector is not None),
        )
        if value
    ]
    if len(given) != 1:
        raise ValueError(
            f"A search needs a text, an image or both, or `like`, or `vector`; got {given or 'none of them'}."
        )
    if like is not None:
        return None, None, None, True
    if vector is not None:
        return None, None, _check_vectors(vector, dim), np.ndim(vector) == 1
    several = isinstance(text, list | tuple) or isinstance(image, list | tuple)
    texts = None if text is None else list(text) if isinstance(text, list | tuple) else [text]
    images = None if image is None else list(image) if isinstance(image, list | tuple) else [image]
    if texts is not None and images is not None and len(texts) != len(images):
        raise ValueError(f"{len(texts)} texts and {len(images)} images: give one image for each text.")
    for position, query in enumerate(texts or ()):
        if not isinstance(query, str) or not query.strip() or LONE_SURROGATE.search(query):
            raise ValueError(f"text {position} must hold words, got {query!r}.")
    for position, photo in enumerate(images or ()):
        if photo is None:
            raise ValueError(f"image {position} is None: give a photo for every query, or search by text alone.")
    if texts == [] or images == []:
        raise ValueError("There is no query in the list.")
    return texts, images, None, not several


def _check_vectors(vector: Any, dim: int) -> np.ndarray:
    try:
        queries = np.atleast_2d(np.asarray(to_numpy(vector), dtype=np.float32))
    except (TypeError, ValueError):
        raise ValueError(f"vector must hold {dim} numbers a query, got {vector!r}.") from None
    if queries.ndim != 2 or queries.shape[1] != dim or not np.isfinite(queries).all():
        raise ValueError(f"vector must hold {dim} finite numbers a query, got the shape {np.shape(vector)}.")
    return queries
