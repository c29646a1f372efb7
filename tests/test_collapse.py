"""The measures of collapse and the k-NN accuracy, against closed forms and a loop."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sept.methods.learner import effective_rank, feature_std
from sept.training.callbacks import NEIGHBOURS, TEMPERATURE, knn_accuracy


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("rank", "dim", "rows"), [(1, 8, 8), (3, 8, 12), (8, 8, 16), (5, 40, 20)])
def test_orthogonal_directions_used_equally_are_the_effective_rank(rank, dim, rows):
    features = 3.0 * torch.eye(dim)[torch.arange(rows - rows % rank) % rank]
    assert effective_rank(features) == pytest.approx(rank, rel=1e-5)  # eigenvalues of the Gram matrix, squared


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values(rows, dim, seed):
    features = random(rows, dim, seed=seed)
    shares = [s / sum(torch.linalg.svdvals(features).tolist()) for s in torch.linalg.svdvals(features).tolist()]
    expected = math.exp(-sum(p * math.log(p) for p in shares if p > 0))
    assert effective_rank(features) == pytest.approx(expected, rel=1e-5)


def test_equal_features_have_rank_one_and_no_deviation():
    features = torch.ones(10, 6)
    assert effective_rank(features) == pytest.approx(1)
    assert feature_std(features) == pytest.approx(0, abs=1e-6)


def test_zero_features_are_measured_without_a_nan():
    assert math.isfinite(effective_rank(torch.zeros(4, 6)))
    assert feature_std(torch.zeros(4, 6)) == 0


def test_features_that_point_everywhere_alike_deviate_by_one():
    both = torch.cat([torch.eye(5), -torch.eye(5)])  # mean 0, mean square 1/5 in every channel
    assert feature_std(7 * both) == pytest.approx(1, rel=1e-6)


def test_knn_accuracy_is_that_of_a_loop_over_images():
    features, labels = random(60, 7), torch.arange(60) % 3
    features = features + 0.8 * F.one_hot(labels, 7)
    unit, right = F.normalize(features.float(), dim=1), 0
    for i in range(60):
        order = sorted((j for j in range(60) if j != i), key=lambda j: -float(unit[i] @ unit[j]))[:NEIGHBOURS]
        votes = [
            sum(math.exp(float(unit[i] @ unit[j]) / TEMPERATURE) for j in order if labels[j] == c) for c in range(3)
        ]
        right += votes.index(max(votes)) == labels[i]
    assert knn_accuracy(features, labels) == pytest.approx(100 * right / 60)


def test_knn_never_votes_for_an_image_by_itself():
    features, labels = torch.eye(4), torch.tensor([0, 1, 2, 3])
    assert knn_accuracy(features, labels) == 0
