"""BM25, the lexical ranking that every shop has for nothing. Needs `pip install "acebert[train]"`."""

import sys
from collections.abc import Sequence

import numpy as np
import torch

from acebert.utils.tokenization import tokenize

# Where JAX is installed, bm25s starts it when it is imported, and JAX then takes three quarters of a GPU's memory.
if hides_jax := "jax" not in sys.modules:
    sys.modules["jax"] = None  # type: ignore[assignment]  # `import jax` raises ImportError
import bm25s

if hides_jax:
    del sys.modules["jax"]


class Bm25Baseline:
    """BM25 as Lucene computes it (k1 = 1.2, b = 0.75) over the tokens of `tokenize`.

    Args:
        titles: one per product; None for a product without a title, which is never retrieved.

    Raises:
        ValueError: if no title has a letter or digit.
    """

    name = "BM25 (titles)"
    description = (
        "Lucene's BM25, k1 = 1.2, b = 0.75; lower-cased words, hyphenated ones also joined, English plurals stripped, "
        "no stop words removed; a title that shares no word with the query is not retrieved"
    )

    def __init__(self, titles: Sequence[str | None]):
        self.num_products = len(titles)
        tokens = [tokenize(title) if title else [] for title in titles]
        if not any(tokens):
            raise ValueError("BM25 needs a title with at least one letter or digit, but the catalogue has none.")
        self.index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        self.index.index(tokens, show_progress=False)

    def score(self, queries: Sequence[str]) -> torch.Tensor:
        """Scores (queries, products); -inf where a title shares no token with the query."""
        scores = np.zeros((len(queries), self.num_products), dtype=np.float32)
        for row, query in enumerate(queries):
            known = [token for token in tokenize(query) if token in self.index.vocab_dict]
            if known:
                scores[row] = self.index.get_scores(known)
        return torch.from_numpy(np.where(scores > 0, scores, -np.inf))
