"""The time of a search, from rates: terms add up, and rates come from a real pool."""

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from sept.retrieval import lanes
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


def test_on_a_gpu_the_slowest_of_disk_products_and_host_decides() -> None:
    rates = Rates(bandwidth=20_000, flops=100_000, taken=5_000, pairs=500)
    ranking = 5 * 100 / 500
    assert estimate(1000, 10, 5, 100, rates, overlapped=True) == pytest.approx(1 + ranking)
    for slower in (replace(rates, bandwidth=5_000), replace(rates, flops=25_000), replace(rates, taken=1_250)):
        assert estimate(1000, 10, 5, 100, slower, overlapped=True) == pytest.approx(4 + ranking)


@pytest.mark.parametrize("there", [False, True], ids=["cpu", "given out ahead"])
def test_the_rates_of_a_pool_are_positive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(lanes, "on_host", lambda device: not there)
    vectors = np.random.default_rng(0).standard_normal((300, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embed(tmp_path, 300, lambda first, last: (vectors[first:last].astype(np.float32), []), 0.0, 100)
    rates = measure(Features.open(tmp_path), vectors[:7])
    assert min(astuple(rates)) > 0
    assert np.isinf(rates.taken) == (not there)  # on a CPU the host's part is in the product's
