"""The time of a search, from rates: terms add up, and rates come from a real pool."""

from pathlib import Path

import numpy as np
import pytest

from sept.retrieval.embedding import embed
from sept.retrieval.estimate import estimate, measure
from sept.retrieval.features import Features


def test_reading_multiplying_and_ranking_add_up() -> None:
    assert estimate(1000, 10, 5, bandwidth=20_000, flops=100_000) == pytest.approx(1 + 1)
    assert estimate(1000, 10, 5, 20_000, 100_000, depth=100, ranks=250) == pytest.approx(1 + 1 + 2)
    assert estimate(1000, 10, 5, 20_000, 50_000, overlapped=True) == pytest.approx(2)
    assert estimate(10, 10, 5, 1e30, 1e30, depth=100, ranks=50) == pytest.approx(1)  # no list is longer than the pool


def test_the_rates_of_a_pool_are_positive(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((300, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embed(tmp_path, 300, lambda first, last: (vectors[first:last].astype(np.float32), []), 0.0, 100)
    rates = measure(Features.open(tmp_path), vectors[:7])
    assert min(rates.bandwidth, rates.flops, rates.ranks) > 0
