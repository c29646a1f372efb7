"""The time of a search, from rates: terms add up, and rates come from a real pool."""

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from sept.retrieval.embedding import embed
from sept.retrieval.estimate import Rates, estimate, measure
from sept.retrieval.features import Features


def test_reading_multiplying_and_ranking_add_up() -> None:
    rates = Rates(bandwidth=20_000, flops=100_000)
    assert estimate(1000, 10, 5, 100, rates) == pytest.approx(1 + 1)
    assert estimate(1000, 10, 5, 100, replace(rates, pairs=500, kept=2)) == pytest.approx(1 + 1 + 2)
    assert estimate(1000, 10, 5, 100, replace(rates, flops=50_000), overlapped=True) == pytest.approx(2)
    fast = Rates(bandwidth=1e30, flops=1e30, pairs=50)
    assert estimate(10, 10, 5, 100, fast) == pytest.approx(1)  # no list is longer than the pool
    gathered = Rates(bandwidth=1e30, flops=1e30, gathered=1000)
    assert 0.9 < estimate(1000, 10, 50, 1000, gathered) <= 1  # no row is read again twice


def test_the_rates_of_a_pool_are_positive(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((300, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embed(tmp_path, 300, lambda first, last: (vectors[first:last].astype(np.float32), []), 0.0, 100)
    assert min(astuple(measure(Features.open(tmp_path), vectors[:7]))) > 0
