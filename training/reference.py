"""What a shop has before any training, which a fine-tuned model is held against at every validation.

It is the untouched text backbone and BM25, both on titles. A model that finds less than they do is no gain, whatever
its loss says (docs/training.md).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from acebert.encoding.knowledge import draw_title_phrases, knowledge_kept, score_title_phrases
from acebert.training.held_out_queries import NDCG, HeldOutQueries
from acebert.training.teacher import TextTeacher
from acebert.training.validation import capped_recall
from acebert.utils.bm25 import Bm25Baseline

NUM_PHRASES = 500
# Where less is kept, a run warns; what phrases are drawn moves the share by about a hundredth.
LEAST_KEPT = 0.97
QUERIES = "query_to_product_recall@10"


class TextReference:
    """The text backbone and BM25 on the titles of a validation split.

    Args:
        backbone: the encoder that the model started from.
        titles: of the validation products; None where one has none.
        seed: of the phrases that are drawn from them.
    """

    def __init__(self, backbone: TextTeacher, titles: Sequence[str | None], seed: int):
        self.backbone = backbone
        self.titles = list(dict.fromkeys(title for title in titles if title is not None))
        self.phrases = draw_title_phrases(self.titles, NUM_PHRASES, seed=seed)
        self.phrase_scores = np.zeros(0)
        if self.phrases.phrases:
            self.phrase_scores = self._score(backbone(self.phrases.phrases), backbone(self.titles))
        self.recalls: dict[str, float] | None = None
        self.held_out: dict[str, float] | None = None

    def _score(self, phrases: torch.Tensor, titles: torch.Tensor) -> np.ndarray:
        return score_title_phrases(phrases.float().cpu(), titles.float().cpu(), self.phrases.relevant)

    def knowledge_kept(
        self,
        encode_queries: Callable[[list[str]], torch.Tensor],
        encode_titles: Callable[[list[str]], torch.Tensor],
    ) -> float:
        """The model's nDCG@10 over the backbone's on words of the titles; NaN where the backbone finds nothing.

        See `acebert.encoding.knowledge`.

        Args:
            encode_queries, encode_titles: from texts to unit vectors (texts, projection_dim).
        """
        if not self.phrase_scores.any():
            return float("nan")
        return knowledge_kept(
            self._score(encode_queries(self.phrases.phrases), encode_titles(self.titles)), self.phrase_scores
        )

    def find(self, queries: Sequence[str], titles: Sequence[str | None], positives: torch.Tensor) -> dict[str, float]:
        """Mean capped recall@10 of the backbone and of BM25. Computed once: a split is validated on the same queries.

        Args:
            queries: of the validation split.
            titles: what the products show; None for one that hides its title or has none.
            positives: (queries, products) booleans.
        """
        if self.recalls is None:
            self.recalls = {
                f"{name}_{QUERIES}": float(capped_recall(scores, positives.cpu(), k=10).mean())
                for name, scores in self.rank(queries, titles).items()
            }
        return self.recalls

    def find_held_out(self, held_out: HeldOutQueries) -> dict[str, float]:
        """nDCG@10 of the backbone and of BM25 on the queries held out of a log. Computed once."""
        if self.held_out is None:
            rankings = self.rank(held_out.queries, held_out.titles)
            self.held_out = {
                f"{name}_{NDCG}": held_out.score(scores.__getitem__)[NDCG] for name, scores in rankings.items()
            }
        return self.held_out

    def rank(self, queries: Sequence[str], titles: Sequence[str | None]) -> dict[str, torch.Tensor]:
        """(queries, products) scores by title of each ranker, -inf for what isn't found; empty without titles."""
        if not any(titles):
            return {}
        shown = torch.tensor([title is not None for title in titles])
        vectors = torch.zeros(len(titles), self.backbone.dim)
        vectors[shown] = self.backbone([title for title in titles if title is not None]).cpu()
        scores = self.backbone(queries).cpu() @ vectors.T
        return {"backbone": scores.masked_fill(~shown, -torch.inf), "bm25": Bm25Baseline(titles).score(queries)}


def find_faults(metrics: dict[str, float]) -> list[str]:
    """What a validation shows to be worse than what was free, and what to do about it."""
    faults = []
    kept, found = metrics.get("knowledge_kept"), metrics.get(QUERIES)
    if kept is not None and kept < LEAST_KEPT:
        faults.append(
            f"By words of titles the model finds {kept:.2f} of what its text backbone finds (knowledge_kept): lower "
            "--learning_rate, raise --anchor_weight, or train for fewer steps."
        )
    held_out = metrics.get(NDCG)
    for name, shown in (("backbone", "its text backbone"), ("bm25", "BM25")):
        free, free_held_out = metrics.get(f"{name}_{QUERIES}"), metrics.get(f"{name}_{NDCG}")
        if free_held_out is not None and held_out is not None and held_out < free_held_out:
            faults.append(
                f"On the queries held out of the log the model has nDCG@10 {held_out:.3f}, {shown} has "
                f"{free_held_out:.3f} by titles alone: train longer, and rank by both."
            )
        if free is not None and found is not None and found < free:
            faults.append(
                f"On the validation queries the model finds {found:.3f} of the products, {shown} finds {free:.3f} by "
                "titles alone: train longer, or with queries that are more like real ones, and rank by both."
            )
    return faults
