"""How much of a text backbone's knowledge of words a fine-tuned model keeps.

Fine-tuning on a shop's queries can destroy what the pre-trained text encoder knows of words that those queries never
say, and queries of the kind trained on can't show it. It is measured on title phrases: one to three neighbouring words
of a title, drawn at random, to which the titles that hold all of the words are relevant. Model and backbone rank the
same titles for the same phrases; what is kept is the model's mean nDCG@10 divided by the backbone's.

Two choices are this project's own. Titles that hold the words are relevant, not the backbone's own first results: by
those the backbone would be perfect, and a model that learned something new would count as one that forgot. And values
of attributes are not asked for, since the templates of training ask for just these.

This module takes vectors, not models: training and evaluation both call it, each with its own way to encode.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from acebert.metrics.retrieval.retrieval import retrieval_scores
from acebert.utils.ranking import queries_per_chunk, top_k
from acebert.utils.tokenization import WORD, tokenize

MAX_WORDS = 3  # of a phrase, as in most queries that shoppers type
PASSES = 5  # through the titles, until there are enough phrases


@dataclass(frozen=True)
class TitlePhrases:
    """Phrases and what is relevant to them.

    Args:
        phrases: all different.
        relevant: for each phrase the numbers of the titles that hold all of its words, at least one.
    """

    phrases: list[str]
    relevant: list[set[int]]


def draw_title_phrases(titles: Sequence[str], num_phrases: int, *, seed: int = 0) -> TitlePhrases:
    """Draws neighbouring words of random titles.

    Args:
        titles: those that are ranked; a title that several products share is drawn as one.
        num_phrases: at most so many; fewer where the titles don't offer as many different ones.
        seed: of the draw.
    """
    holding: dict[str, set[int]] = {}
    for number, title in enumerate(titles):
        for token in tokenize(title):
            holding.setdefault(token, set()).add(number)
    rng = np.random.default_rng(seed)
    words = [WORD.findall(title) for title in dict.fromkeys(titles)]
    words = [found for found in words if found]
    phrases: dict[str, set[int]] = {}
    for _ in range(PASSES):
        for number in rng.permutation(len(words)).tolist():
            found = words[number]
            length = min(len(found), int(rng.integers(1, MAX_WORDS + 1)))
            start = int(rng.integers(len(found) - length + 1))
            text = " ".join(found[start : start + length])
            if len(phrases) < num_phrases and any(character.isalpha() for character in text):
                phrases.setdefault(text, set.intersection(*(holding[token] for token in tokenize(text))))
    return TitlePhrases(list(phrases), list(phrases.values()))


def score_title_phrases(phrases: torch.Tensor, titles: torch.Tensor, relevant: Sequence[set[int]]) -> np.ndarray:
    """nDCG@10 of each phrase.

    Args:
        phrases: (phrases, width), unit vectors of the side of queries, in float32 on the CPU.
        titles: (titles, width), unit vectors of the side of products.
        relevant: of [`TitlePhrases`].

    Returns:
        (phrases,) in [0, 1].
    """
    step = queries_per_chunk(len(titles))
    rankings: list[list[str]] = []
    for start in range(0, len(phrases), step):
        scores = phrases[start : start + step] @ titles.T
        rankings += [[str(title) for title in best] for best in top_k(scores.numpy(), 10)]
    grades = [{str(title): 1.0 for title in titles} for titles in relevant]
    return retrieval_scores(rankings, grades, 10)["ndcg@10"]


def knowledge_kept(model_scores: np.ndarray, backbone_scores: np.ndarray) -> float:
    """The model's mean over the backbone's, both of [`score_title_phrases`] on the same phrases; NaN over 0.

    1 means that as much is known as before, less that something was forgotten; a model can exceed 1.
    """
    backbone = float(backbone_scores.mean())
    return float(model_scores.mean()) / backbone if backbone else float("nan")
