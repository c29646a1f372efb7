"""Randomness is a pure function of seed and purpose."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sept.data.rng import fold, generator, numpy_rng, permutation, seeded

PARTS = st.lists(st.integers(-(2**70), 2**70) | st.text(max_size=5), max_size=4)


@given(PARTS, PARTS, st.integers(0, 2**64))
def test_fold_tells_different_parts_apart_and_fits_63_bits(first, second, seed):
    assert 0 <= fold(seed, *first) < 2**63
    assert (fold(seed, *first) == fold(seed, *second)) == (first == second)


def test_fold_never_changes():
    assert fold(0, "crop", 1) == 8227005896663026158


def test_fold_separates_types_borders_and_order():
    assert len({fold(1, "2"), fold(1, 2), fold(12), fold(1, "a", "b"), fold(1, "ab"), fold(1, "b", "a")}) == 6
    assert fold(1, np.int64(2)) == fold(1, 2)


def test_generators_repeat_and_differ_by_purpose():
    draws = [torch.rand(4, generator=generator(3, purpose)) for purpose in ("a", "a", "b")]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert numpy_rng(3, "a", 0).random() == numpy_rng(3, "a", 0).random() != numpy_rng(3, "a", 1).random()


def global_draws():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_seeded_decides_all_three_global_generators():
    with seeded(5, "epoch", 1):
        first = global_draws()
    global_draws()
    with seeded(5, "epoch", 1):
        assert global_draws() == first
    with seeded(5, "epoch", 2):
        assert all(a != b for a, b in zip(global_draws(), first, strict=True))


def leave_by_exception():
    with seeded(6):
        global_draws()
        raise KeyError


def test_seeded_restores_the_outer_state_even_after_an_exception():
    with seeded(0):
        expected = [global_draws(), global_draws()]
    with seeded(0):
        found = [global_draws()]
        with pytest.raises(KeyError):
            leave_by_exception()
        found.append(global_draws())
    assert found == expected


def test_permutation_visits_everything_once_in_another_order_each_epoch():
    orders = [permutation(1, epoch, 100) for epoch in (0, 0, 1)]
    assert orders[0].dtype == np.int64
    assert sorted(orders[0]) == list(range(100))
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
