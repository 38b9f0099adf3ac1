"""What ACE-BERT is compared with, against formulas, naive versions and known answers."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from helpers import draw
from transformers import AutoModel, BertTokenizer

from acebert.data.columns import Columns
from acebert.data.grouping import hash_text
from acebert.data.pairs import PairDataset
from acebert.data.query_templates import QueryTemplates
from acebert.evaluation.baselines import (
    ResidualAdapter,
    TextAdapters,
    TextEncoder,
    TextEncoderBaseline,
    fuse_rankings,
    raw_patch_vectors,
)
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.utils.bm25 import Bm25Baseline
from acebert.utils.tokenization import tokenize


def test_bm25_equals_its_formula() -> None:
    titles = ["Blue Shirt", "Blue T-Shirt with blue stripes", None, "Red dresses", "Belt"]
    queries = ["blue shirts", "dress", "unknown words", "!"]
    scores = Bm25Baseline(titles).score(queries).numpy()
    documents = [tokenize(title or "") for title in titles]
    mean_length = np.mean([len(document) for document in documents])
    for row, query in enumerate(queries):
        for column, document in enumerate(documents):
            expected = 0.0
            for token in tokenize(query):
                frequency = Counter(document)[token]
                containing = sum(token in other for other in documents)
                idf = math.log(1 + (len(titles) - containing + 0.5) / (containing + 0.5))
                expected += idf * frequency / (frequency + 1.2 * (1 - 0.75 + 0.75 * len(document) / mean_length))
            assert scores[row, column] == pytest.approx(expected if expected else -math.inf)


def test_bm25_needs_titles() -> None:
    with pytest.raises(ValueError, match="BM25 needs a title"):
        Bm25Baseline([None, "!"])


def test_tokens_meet_across_plurals_and_hyphens() -> None:
    assert tokenize("Dresses, WATCHES & Accessories") == ["dress", "watch", "accessory"]
    assert tokenize("T-Shirts") == ["t", "shirt", "tshirt"]
    assert set(tokenize("Tshirts")) <= set(tokenize("t-shirt"))
    assert tokenize("glass bus 24") == ["glass", "bus", "24"]


def test_text_encoder_scores_are_cosines_of_mean_pooled_minilm(minilm: str) -> None:
    titles = ["Blue Shirt", None, "A long title about red leather sandals"]
    baseline = TextEncoderBaseline(TextEncoder(minilm, torch.device("cpu")), titles)
    scores = baseline.score(["shoes", "blue top"])

    tokenizer, model = BertTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm)

    def vector(text: str) -> torch.Tensor:
        with torch.no_grad():
            hidden = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        return hidden / hidden.norm()

    for row, query in enumerate(["shoes", "blue top"]):
        expected = [float(vector(query) @ vector(title)) if title else -math.inf for title in titles]
        assert scores[row].tolist() == pytest.approx(expected, abs=1e-4)


class RandomEncoder:
    """Stands in for a text model that knows nothing: every text has a random vector of its own."""

    name_or_path = "random"

    def encode(self, texts: Sequence[str], side: str) -> torch.Tensor:
        vectors = np.stack([np.random.default_rng(hash_text(f"{side} {text}")).normal(size=32) for text in texts])
        return F.normalize(torch.from_numpy(vectors).float(), dim=1)


COLOURS, KINDS = ("red", "green", "blue", "black"), ("shirt", "shoe", "bag", "mug")


def training_pairs() -> PairDataset:
    rows = [
        {"id": i, "title": f"{'abcd'[i % 4]}{'efgh'[i // 4 % 4]}", "colour": COLOURS[i % 4], "kind": KINDS[i // 4 % 4]}
        for i in range(64)
    ]
    templates = QueryTemplates(["{colour} {kind}"], drop_probability=0)
    return PairDataset(Dataset.from_list(rows), Columns(image=None, attributes=["colour", "kind"]), templates)


def test_adapters_start_as_the_identity() -> None:
    vectors = F.normalize(torch.randn(5, 16), dim=1)
    torch.testing.assert_close(ResidualAdapter(16)(vectors), vectors)


def test_adapters_learn_the_training_queries() -> None:
    # A title is the shop's own code for colour and kind, so only training can tell which answers a query.
    titles = [f"{a}{b}" for b in "efgh" for a in "abcd"]
    queries = [f"{colour} {kind}" for kind in KINDS for colour in COLOURS]
    encoder = RandomEncoder()
    recipe = {"num_epochs": 40, "batch_size": 64, "learning_rate": 1e-2}
    adapters = TextAdapters(encoder, training_pairs(), **recipe)
    frozen, adapted = TextEncoderBaseline(encoder, titles), TextEncoderBaseline(encoder, titles, adapters)
    own = torch.arange(16)
    assert (frozen.score(queries).argmax(dim=1) == own).float().mean() < 0.3
    assert (adapted.score(queries).argmax(dim=1) == own).float().mean() > 0.9
    assert (frozen.name, adapted.name) == (TextEncoderBaseline.name, TextEncoderBaseline.adapted_name)
    again = TextAdapters(encoder, training_pairs(), **recipe)
    torch.testing.assert_close(adapted.score(queries), TextEncoderBaseline(encoder, titles, again).score(queries))


def test_adapters_need_products_with_title_and_query() -> None:
    rows = [{"id": 1, "title": "a", "colour": "red"}, {"id": 2, "title": None, "colour": "red"}]
    columns = Columns(image=None, attributes=["colour"])
    pairs = PairDataset(Dataset.from_list(rows), columns, QueryTemplates(["{colour}"]))
    with pytest.raises(ValueError, match=r"^1 training products have .*--no_text_adapters"):
        TextAdapters(RandomEncoder(), pairs)


def test_fused_rankings_worked_example() -> None:
    left = torch.tensor([[3.0, 2.0, 1.0, -math.inf]])
    right = torch.tensor([[-math.inf, 5.0, 9.0, -math.inf]])
    expected = [1 / 61, 1 / 62 + 1 / 62, 1 / 63 + 1 / 61, -math.inf]
    assert fuse_rankings(left, right)[0].tolist() == pytest.approx(expected)
    torch.testing.assert_close(fuse_rankings(left, right), fuse_rankings(right, left))


def test_raw_patches_know_a_drawing_again() -> None:
    processor = AceBertImageProcessor(patch_size=8, max_num_patches=36)
    photos = [draw("shirt", "red", 0), None, draw("shirt", "red", 1), draw("bag", "blue", 0)]
    vectors = raw_patch_vectors(photos, processor, side=8)
    assert vectors.shape == (4, 192)
    assert not vectors[1].any()
    assert vectors.min() >= 0 and vectors.max() <= 1
    centred = F.normalize(vectors[[0, 2, 3]] - vectors[[0, 2, 3]].mean(0), dim=1)
    assert centred[0] @ centred[1] > centred[0] @ centred[2]
