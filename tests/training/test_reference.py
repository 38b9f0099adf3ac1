"""What a run's model is held against."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

from acebert.training.reference import TextReference, find_faults

TITLES = ["red wool shirt", "blue shirt", "green cotton dress", None, "brown leather belt"]
WORDS = sorted({word for title in TITLES if title for word in title.split()})


class BagOfWords:
    """A teacher that knows each word, and no two words alike."""

    dim = len(WORDS)

    def __init__(self, known: Sequence[str] = WORDS):
        self.known = known

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [[float(word in text.split() and word in self.known) for word in WORDS] for text in texts]
        return F.normalize(torch.tensor(rows) + 1e-6, dim=1)


def test_a_model_that_is_the_backbone_keeps_all_and_one_that_lost_words_less() -> None:
    reference = TextReference(BagOfWords(), TITLES, seed=0)
    assert reference.knowledge_kept(BagOfWords(), BagOfWords()) == pytest.approx(1.0)
    forgetful = BagOfWords(["shirt"])
    assert reference.knowledge_kept(forgetful, forgetful) < 0.9


def test_backbone_and_bm25_are_asked_the_validation_queries() -> None:
    positives = torch.tensor([[True, False, False, True, False], [False, False, False, True, False]])
    found = TextReference(BagOfWords(), TITLES, seed=0).find(["red shirt", "shoe"], TITLES, positives)
    # One of two is found for the first: the other shows no title. For the second, BM25 finds nothing.
    expected = {"backbone_query_to_product_recall@10": 0.25, "bm25_query_to_product_recall@10": 0.25}
    assert found == pytest.approx(expected)


def test_faults_name_what_was_better_and_what_to_do() -> None:
    good = {"knowledge_kept": 1.01, "query_to_product_recall@10": 0.5, "bm25_query_to_product_recall@10": 0.4}
    assert find_faults(good) == []
    assert find_faults({"score": 0.1}) == []
    bad = {**good, "knowledge_kept": 0.6, "bm25_query_to_product_recall@10": 0.7}
    forgot, lost = find_faults(bad)
    assert "0.60 of what its text backbone finds" in forgot and "--anchor_weight" in forgot
    assert "finds 0.500 of the products, BM25 finds 0.700" in lost
