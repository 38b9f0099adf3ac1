"""What is kept of a text backbone's knowledge, on titles small enough to know all answers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from acebert.encoding.knowledge import draw_title_phrases, knowledge_kept, score_title_phrases
from acebert.utils.tokenization import tokenize

TITLES = ["Blue Cotton T-Shirt", "Red cotton shirts", "Blue jeans 501", "", "Blue Cotton T-Shirt", "501"]


def test_phrases_are_neighbouring_words_with_all_titles_that_hold_them() -> None:
    drawn = draw_title_phrases(TITLES, 1000)
    assert len(set(drawn.phrases)) == len(drawn.phrases)
    # Every phrase of one to three words of the four different titles with words, but for "501", which has no letter.
    expected = set()
    for words in (["Blue", "Cotton", "T-Shirt"], ["Red", "cotton", "shirts"], ["Blue", "jeans", "501"]):
        expected |= {" ".join(words[i:j]) for i in range(3) for j in range(i + 1, 4)}
    assert set(drawn.phrases) <= expected - {"501"}
    assert len(drawn.phrases) > 8
    for phrase, relevant in zip(drawn.phrases, drawn.relevant, strict=True):
        tokens = set(tokenize(phrase))
        assert relevant == {row for row, title in enumerate(TITLES) if tokens <= set(tokenize(title))}, phrase
        assert relevant
    assert draw_title_phrases(TITLES, 1000) == drawn
    assert draw_title_phrases(TITLES, 3).phrases == drawn.phrases[:3]
    assert draw_title_phrases(TITLES, 1000, seed=1).phrases != drawn.phrases
    assert draw_title_phrases(["", "12 34"], 10).phrases == []


def test_scores_are_ndcg_of_the_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = F.normalize(torch.randn(40, 8), dim=1)
    phrases = F.normalize(torch.randn(7, 8), dim=1)
    rng = np.random.default_rng(0)
    relevant = [set(rng.choice(40, size=size, replace=False).tolist()) for size in (1, 2, 3, 5, 8, 13, 21)]
    expected = []
    for scores, rows in zip((phrases @ titles.T).tolist(), relevant, strict=True):
        order = sorted(range(40), key=lambda row, scores=scores: -scores[row])[:10]
        gain = sum((row in rows) / math.log2(rank + 2) for rank, row in enumerate(order))
        expected.append(gain / sum(1 / math.log2(rank + 2) for rank in range(min(10, len(rows)))))
    monkeypatch.setattr("acebert.utils.ranking.SCORES_PER_CHUNK", 80)  # two phrases at a time
    np.testing.assert_allclose(score_title_phrases(phrases, titles, relevant), expected)
    assert 0 < np.mean(expected) < 1


def test_what_is_kept_is_a_ratio_of_means() -> None:
    backbone = np.array([1.0, 0.5, 0.0])
    assert knowledge_kept(backbone, backbone) == 1
    assert knowledge_kept(np.array([0.5, 0.0, 0.25]), backbone) == pytest.approx(0.5)
    assert knowledge_kept(np.array([1.0, 1.0, 1.0]), backbone) == pytest.approx(2)  # learned, not forgotten
    assert math.isnan(knowledge_kept(backbone, np.zeros(3)))
