"""What shops search with today, as baselines: BM25 and a text embedding model, both over titles alone.

A baseline is built on a catalogue's titles and has `score(queries)`, which returns a (queries, products) array. A
product that it doesn't retrieve scores -inf.
"""

import re
from collections.abc import Sequence

import bm25s
import numpy as np
import torch

WORD = re.compile(r"\w+(?:-\w+)*")


def tokenize(text: str) -> list[str]:
    """Splits text the way a shop's lexical index is commonly set up, so that BM25 is no straw man.

    Words are lower-cased runs of letters, digits and underscores. A hyphenated word gives its parts and their join,
    so that "T-shirt" meets "Tshirts". English plurals are stripped by suffix, so that "Shirts" meets "Shirt". No stop
    words are removed. The rules are this project's own.
    """
    tokens = []
    for word in WORD.findall(text.lower()):
        parts = word.split("-")
        tokens += [_strip_plural(part) for part in parts]
        if len(parts) > 1:
            tokens.append(_strip_plural("".join(parts)))
    return tokens


def _strip_plural(token: str) -> str:
    if token.endswith("ies") and len(token) > 4:  # accessories; but ties
        return token[:-3] + "y"
    if token.endswith(("sses", "shes", "ches", "xes", "zes")):
        return token[:-2]
    if token.endswith("s") and not token.endswith(("ss", "us", "is")) and len(token) > 3:
        return token[:-1]
    return token


class Bm25Baseline:
    """BM25 as Lucene computes it (k1 = 1.2, b = 0.75) over the tokens of `tokenize`.

    Args:
        titles: one per product; None for a product without a title, which is never retrieved.
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


class TextEncoderBaseline:
    """Cosine similarity of query and title under a sentence-transformers model.

    Args:
        model_name_or_path: folder or Hub id of the model.
        titles: one per product; None for a product without a title, which is never retrieved.
        device: where the model runs.
        batch_size: titles per forward pass.
    """

    name = "Text embeddings (titles)"

    def __init__(
        self, model_name_or_path: str, titles: Sequence[str | None], device: torch.device, batch_size: int = 64
    ):
        # Here, because the import takes seconds, and BM25 alone doesn't need it.
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(model_name_or_path, device=str(device))
        self.titles = titles
        self.batch_size = batch_size
        self.title_embeds: torch.Tensor | None = None
        self.description = f"cosine similarity of query and title under `{model_name_or_path}`"

    def score(self, queries: Sequence[str]) -> torch.Tensor:
        """Scores (queries, products) in [-1, 1]; the titles are encoded on the first call."""
        options = {"batch_size": self.batch_size, "normalize_embeddings": True, "convert_to_tensor": True}
        if self.title_embeds is None:
            titles = [title or "" for title in self.titles]
            self.title_embeds = self.model.encode_document(titles, show_progress_bar=True, **options).float()
        query_embeds = self.model.encode_query(list(queries), show_progress_bar=False, **options).float()
        scores = query_embeds @ self.title_embeds.T
        scores[:, [title is None for title in self.titles]] = -torch.inf
        return scores
