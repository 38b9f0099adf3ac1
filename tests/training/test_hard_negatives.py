"""Hard negatives by hand-made vectors, and the order that puts them in one batch."""

from collections import Counter
from itertools import groupby

import pytest
import torch
from helpers import unit_vectors

from acebert.training.hard_negatives import HardNegativeSampler, find_hard_negatives


def at(*degrees: float) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


class TestFindHardNegatives:
    def test_takes_the_nearest_beyond_the_margin(self) -> None:
        products = at(10, 12, 30, 50, 80)
        queries = at(0, 90, 90, 90, 90)
        ids = torch.arange(5)
        # Cosines of the first query: .985, .978, .866, .643, .174. The second is too near its own to be a negative.
        found = find_hard_negatives(queries, products, ids, ids, count=3, margin=0.05)
        assert found[0].tolist() == [2, 3, 4]
        assert find_hard_negatives(queries, products, ids, ids, count=3, margin=0.0)[0].tolist() == [1, 2, 3]
        # A product that scores higher than the row's own is no negative, whatever the margin.
        assert 4 not in find_hard_negatives(queries, products, ids, ids, count=5, margin=0.0)[1].tolist()

    def test_positives_are_no_hard_negatives(self) -> None:
        products, queries, apart = at(10, 12, 30, 50, 80), at(0, 90, 90, 90, 90), torch.arange(5)
        same_product = torch.tensor([0, 1, 0, 3, 4])
        assert find_hard_negatives(queries, products, same_product, apart, 2, 0.05)[0].tolist() == [3, 4]
        same_query = torch.tensor([0, 1, 2, 0, 4])
        assert find_hard_negatives(queries, products, apart, same_query, 2, 0.05)[0].tolist() == [2, 4]

    def test_pads_where_there_are_no_more(self) -> None:
        ids = torch.arange(3)
        found = find_hard_negatives(at(0, 0, 0), at(0, 60, 90), ids, ids, count=5, margin=0.1)
        assert found[0].tolist() == [1, 2, -1, -1, -1]
        alone = find_hard_negatives(at(0, 0), at(0, 1), torch.zeros(2), torch.arange(2), count=2, margin=0.0)
        assert (alone == -1).all()

    def test_chunks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        queries, products, ids = unit_vectors(40, 8, seed=1), unit_vectors(40, 8, seed=2), torch.arange(40) // 2
        whole = find_hard_negatives(queries, products, ids, ids, count=4, margin=0.1)
        monkeypatch.setattr("acebert.utils.ranking.SCORES_PER_CHUNK", 40 * 7)
        assert torch.equal(find_hard_negatives(queries, products, ids, ids, 4, 0.1), whole)


class TestHardNegativeSampler:
    def test_a_plain_shuffle_before_the_first_search(self) -> None:
        sampler = HardNegativeSampler(50, seed=3, followers=2)
        first, again = list(sampler), list(sampler)
        assert first == again != list(range(50)) and sorted(first) == list(range(50))
        sampler.start_epoch(1)
        assert list(sampler) != first
        assert list(HardNegativeSampler(50, seed=4, followers=2)) != first

    def test_hard_negatives_follow_their_row_and_every_row_comes_once(self) -> None:
        """Twenty clusters of six hard negatives of each other: mostly three in a row."""
        cluster = torch.arange(120) // 6
        sampler = HardNegativeSampler(120, seed=0, followers=2)
        others = [[j for j in range(120) if cluster[j] == cluster[i] and j != i] + [-1] for i in range(120)]
        sampler.hard_negatives = torch.tensor(others)
        order = list(sampler)
        assert sorted(order) == list(range(120))
        lengths = Counter(len(list(run)) for _, run in groupby(cluster[order].tolist()))
        assert lengths[3] > 30 and sum(lengths.values()) <= 42
        plain = cluster[list(HardNegativeSampler(120, seed=0, followers=2))].tolist()
        assert sum(1 for _ in groupby(plain)) > 100

    def test_its_state_is_the_order(self) -> None:
        sampler = HardNegativeSampler(30, seed=0, followers=3)
        sampler.hard_negatives, sampler.mined_in = torch.randint(30, (30, 6), generator=torch.manual_seed(0)), 4
        sampler.start_epoch(5)
        other = HardNegativeSampler(30, seed=0, followers=3)
        other.load_state_dict(sampler.state_dict())
        other.start_epoch(5)
        assert list(other) == list(sampler) and other.mined_in == 4
