"""What validations measure, by hand-made scores."""

import torch

from acebert.training.validation import capped_recall


def test_capped_recall() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.1, 0.2, 0.3, 0.4]])
    positives = torch.tensor([[True, False, True, True], [True, False, False, False]])
    assert capped_recall(scores, positives, k=2).tolist() == [0.5, 0.0]
    assert capped_recall(scores, positives, k=9).tolist() == [1.0, 1.0]


def test_what_scores_minus_infinity_is_not_found() -> None:
    scores = torch.tensor([[-torch.inf, 0.5, -torch.inf]])
    assert capped_recall(scores, torch.tensor([[True, True, False]]), k=2).tolist() == [0.5]
