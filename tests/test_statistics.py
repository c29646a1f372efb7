"""Differences are taken over pairs of seeds; their intervals are Student's, and say when a difference is noise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lines import line, run
from scipy import stats

from sept.tables.statistics import CONFIDENCE, Interval, differences, gain, independent, interval, paired

SCORES = st.lists(st.floats(0, 100), min_size=2, max_size=12)


def test_a_known_interval():
    found = interval([1.0, 2.0, 3.0])  # t of 2 degrees of freedom at 97.5 % is 4.303, the standard error 1 / sqrt(3)
    assert (found.mean, found.n) == (2.0, 3)
    assert found.high == pytest.approx(2 + 4.3026527 / math.sqrt(3))
    assert found.low == pytest.approx(2 - 4.3026527 / math.sqrt(3))
    assert found.within_noise is True
    assert interval([2.0, 2.1, 2.2]).within_noise is False


@given(SCORES)
def test_intervals_are_those_of_scipy(values):
    found = interval(values)
    error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    if error < 1e-6:
        return
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=np.mean(values), scale=error)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


@given(SCORES, SCORES)
def test_a_difference_of_pairs_is_scipys_paired_test(first, second):
    n = min(len(first), len(second))
    first, second = first[:n], second[:n]
    gaps = np.subtract(first, second)
    if gaps.std() < 1e-3:
        return
    result = paired(line("sept", first), line("random", second))
    assert result is not None
    expected = stats.ttest_rel(first, second).confidence_interval(CONFIDENCE)
    assert result[0].low == pytest.approx(expected.low, abs=1e-6)
    assert result[0].high == pytest.approx(expected.high, abs=1e-6)
    assert result[0].within_noise == (expected.low <= 0 <= expected.high)
    assert result[1] == "seeds"


@given(SCORES, st.floats(-50, 50))
def test_a_shift_moves_the_interval_and_the_other_way_round_mirrors_it(values, shift):
    moved, mirrored, found = interval([v + shift for v in values]), interval([-v for v in values]), interval(values)
    assert found.low is not None
    assert found.high is not None
    assert moved.mean == pytest.approx(found.mean + shift, abs=1e-9)
    assert moved.high == pytest.approx(found.high + shift, abs=1e-6)
    assert (mirrored.low, mirrored.high) == (pytest.approx(-found.high, abs=1e-9), pytest.approx(-found.low, abs=1e-9))
    assert found.low <= found.mean + 1e-9
    assert found.mean <= found.high + 1e-9


@given(st.lists(st.floats(0, 100), min_size=3, max_size=8), st.randoms())
def test_the_order_of_the_runs_has_no_influence(scores, random):
    runs = [run(score, seed) for seed, score in enumerate(scores)]
    other = line("random", [1.5 * seed for seed in range(len(scores))])
    straight = paired(line("sept", [], runs), other)
    random.shuffle(runs)
    assert paired(line("sept", [], runs), other) == straight


def test_only_seeds_that_both_have_are_paired():
    ours = line("sept", [], [run(10, 0), run(20, 1), run(70, 5)])
    theirs = line("random", [], [run(4, 1), run(1, 0), run(0, 7)])
    result = paired(ours, theirs)
    assert result is not None
    assert (result[0].n, result[0].mean) == (2, (9 + 16) / 2)
    assert paired(line("sept", [], [run(1, 0)]), line("random", [], [run(1, 1)])) is None


def test_one_pair_has_no_interval_and_is_neither_noise_nor_not():
    result = paired(line("sept", [3.0]), line("random", [1.0]))
    assert result == (Interval(2.0, None, None, 1), "one run each")
    assert result[0].within_noise is None


def test_finetunings_of_one_seed_count_once_and_alone_are_told_for_what_they_are():
    """Nine fine-tunings of three pre-trainings are three observations, not nine."""
    ours = [run(10 * seed + again, seed, again) for seed in range(3) for again in range(3)]
    theirs = [run(0, seed, again) for seed in range(3) for again in range(3)]
    result = paired(line("sept", [], ours), line("random", [], theirs))
    assert result == (interval([1.0, 11.0, 21.0]), "seeds")
    alone = paired(line("sept", [], ours[:3]), line("random", [], theirs[:3]))
    assert alone == (interval([0.0, 1.0, 2.0]), "fine-tunings")


def test_the_values_of_a_row_are_its_seeds_and_within_one_its_finetunings():
    runs = [run(10 * seed + again, seed, again) for seed in range(3) for again in range(3)]
    assert independent(runs, "score") == [1.0, 11.0, 21.0]
    assert independent(runs[3:6], "score") == [10, 11, 12]
    assert independent([run(1, 0), run(7, 5, 0), run(9, 5, 1)], "score") == [1, 8]  # a seed counts once, however often
    assert independent([{"seed": 0, "ap": None}, {"seed": 1}], "ap") == []


def told(lines):
    return [(d.above["init"], d.below["init"], d.axis, d.interval.mean) for d in differences(lines)]


def test_inits_are_compared_where_all_else_is_alike():
    lines = [
        line("sept", [5.0, 6.0]),
        line("rand_init", [1.0, 1.0]),
        line("random", [2.0, 2.0]),
        line("random", [4.0, 4.0], budget=20),
        line("sept", [9.0, 9.0], task="b"),
        line("random", [1.0, 1.0], pool="q"),
        line("sept", [], runs=None, shot=10),
    ]
    assert told(lines) == [
        ("sept", "rand_init", "init", 4.5),
        ("sept", "random", "init", 3.5),
        ("random", "rand_init", "init", 1.0),
        ("random", "rand_init", "init", 3.0),
        ("random", "rand_init", "init", 0.0),
        ("random", "random", "budget", 2.0),
        ("random", "random", "pool", -1.0),
    ]


def test_other_choices_are_compared_with_the_first():
    lines = [line("sept", [value, value], budget=budget) for value, budget in ((1.0, 10), (2.0, 50), (4.0, 100))]
    assert [(d.above["budget"], d.below["budget"], d.interval.mean) for d in differences(lines)] == [
        (50, 10, 1.0),
        (100, 10, 3.0),
    ]
    lines = [line("sept", [1.0, 1.0]), line("sept", [2.0, 2.0], retriever="s", budget=50)]
    assert differences(lines) == []  # two choices at once


def test_what_measures_something_else_is_not_compared():
    assert differences([line("sept", [1.0, 2.0]), line("random", [1.0, 1.0], metric="ap")]) == []


def test_the_gain_over_random_images():
    lines = [line("random", [1.0, 2.0], budget=20), line("random", [2.0, 4.0]), line("sept", [4.0, 8.0])]
    found = gain(lines[2], lines)
    assert found is not None
    assert (found.mean, found.n) == (3.0, 2)
    assert gain(lines[1], lines) is None
    selector = line("union_topk", [5.0, 6.0], budget=10, pool="p", query="image", retriever="r")
    assert gain(selector, lines) == interval([3.0, 2.0])


def test_selections_are_compared_within_a_method_and_a_length():
    """A table of methods has a row of random images for each of them, and for each length."""
    rows = [("moby", "1e+12"), ("simclr", "1e+12"), ("simclr", "5e+11")]
    lines = [
        line(init, [score, score], method=method, compute=compute)
        for (method, compute), scores in zip(rows, ((20.0, 21.0), (35.0, 51.0), (30.0, 40.0)), strict=True)
        for init, score in zip(("random", "sept"), scores, strict=True)
    ]
    assert [found.mean for each in lines if (found := gain(each, lines))] == [1.0, 16.0, 10.0]
    assert told(lines) == [
        ("sept", "random", "init", 1.0),
        ("random", "random", "method", 15.0),
        ("sept", "sept", "method", 30.0),
        ("sept", "random", "init", 16.0),
        ("random", "random", "compute", -5.0),
        ("sept", "sept", "compute", -11.0),
        ("sept", "random", "init", 10.0),
    ]
