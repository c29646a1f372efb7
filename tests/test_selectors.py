"""Every selector meets the budget exactly, repeats nothing, and does what its slow reference does."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sept.errors import ConfigError
from sept.retrieval import cluster as cluster_module
from sept.retrieval.cluster import by_mass, centroids, nearest, quotas
from sept.retrieval.diagnostics import separate
from sept.retrieval.embedding import embed
from sept.retrieval.features import Features
from sept.retrieval.index import search
from sept.retrieval.select import FilteredLists
from sept.retrieval.selections import Selection
from sept.retrieval.shards import Skip
from sept.runtime.hardware import Runtime
from sept.selectors import SELECTORS, Selector, SimCore, context
from sept.selectors import classifier as classifier_module
from sept.selectors.context import SelectionContext
from sept.stages.task_selection import Search, TaskSelectionSpec, _Chooser

ROWS, DIM, PER_SHARD = 600, 8, 250
SKIPPED = (3, 250, 599)
TARGET = np.eye(DIM)[0]
SEARCHING = [name for name, entry in SELECTORS.items() if entry.searches]


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def world() -> np.ndarray:
    """Three far groups of vectors, one row in three each; the first is the task's."""
    vectors = np.random.default_rng(0).normal(0, 0.25, (ROWS, DIM))
    vectors[np.arange(ROWS), np.arange(ROWS) % 3] += 1
    vectors = unit(vectors)
    vectors[list(SKIPPED)] = 0
    return vectors


def embedded(folder: Path) -> Features:
    vectors = world()

    def encode(first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
        return vectors[first:last], [Skip(row, str(row), "bad") for row in SKIPPED if first <= row < last]

    embed(folder, ROWS, encode, 0.5, PER_SHARD)
    return Features.open(folder)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Features:
    return embedded(tmp_path_factory.mktemp("features"))


def choice(
    features: Features, budget: int, queries: int = 6, seed: int = 0, removed: tuple[int, ...] = ()
) -> SelectionContext:
    looked_up = unit(np.random.default_rng(seed + 1).normal(0, 0.2, (queries, DIM)) + TARGET)
    lists = FilteredLists(partial(search, looked_up, features), features.embedded)
    lists.removed = np.array(sorted({*removed} - {*SKIPPED}), dtype=np.int64)  # rows with a vector
    return SelectionContext(features, looked_up, budget, seed, lists, search=lists_of(features))


def lists_of(features: Features) -> Search:
    return lambda vectors, depth: search(vectors, features, depth)


def settings_of(name: str, **settings_: Any) -> Selector:
    """A few clusters of the few queries, where it clusters them."""
    kind = SELECTORS[name].settings
    return kind(name, **({"clusters": 3} if kind is SimCore else {}), **settings_)


def choose(name: str, given_: SelectionContext) -> np.ndarray:
    chosen = SELECTORS[name].load()(replace(given_, settings=settings_of(name)))
    return chosen.rows if isinstance(chosen, Selection) else chosen


@pytest.mark.parametrize("name", SEARCHING)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_budget_is_met_exactly_without_masked_rows(features: Features, name: str, data: st.DataObject) -> None:
    removed = tuple(data.draw(st.sets(st.integers(0, ROWS - 1), max_size=40)))
    available = ROWS - len({*removed, *SKIPPED})
    budget = data.draw(st.one_of(st.integers(1, available), st.just(available)))
    given_ = choice(features, budget, data.draw(st.integers(2, 9)), data.draw(st.integers(0, 5)), removed)
    rows = choose(name, given_)
    assert rows.dtype == np.int64
    assert len(set(rows.tolist())) == len(rows) == budget
    assert not {*rows.tolist()} & {*removed, *SKIPPED}
    assert choose(name, given_).tolist() == rows.tolist()


@pytest.mark.parametrize("name", SEARCHING)
def test_the_tasks_kind_is_chosen(features: Features, name: str) -> None:
    rows = choose(name, choice(features, 100))
    assert (rows % 3 == 0).mean() > 0.9


def chooser(name: str, features: Features, budget: int) -> _Chooser:
    """As the selection has it."""
    given_ = choice(features, budget)
    spec = TaskSelectionSpec(settings_of(name), budget, "remove", given_.seed, None, None)
    return _Chooser(spec, features, given_.queries, lists_of(features), None, Runtime())


@pytest.mark.parametrize("name", SEARCHING)
def test_a_budget_over_the_pool_is_refused(features: Features, name: str) -> None:
    with pytest.raises(ConfigError, match=r"budget\.images=597 but the pool holds only 595 readable images"):
        chooser(name, features, 597)(np.array([6, 7]))
    assert len(chooser(name, features, 595)(np.array([6, 7]))) == 595


@pytest.mark.parametrize("budget", [1, 10, 57, 300, ROWS - len(SKIPPED)])
def test_union_topk_is_the_smallest_union_that_holds_the_budget(features: Features, budget: int) -> None:
    given_ = choice(features, budget)
    complete = search(given_.queries, features, features.embedded)
    k = next(k for k in range(1, ROWS) if len(np.unique(complete.rows[:, :k])) >= budget)
    best: dict[int, float] = {}
    for rows, scores in zip(complete.rows[:, :k].tolist(), complete.scores[:, :k].tolist(), strict=True):
        for row, score in zip(rows, scores, strict=True):
            best[row] = max(best.get(row, -2.0), score)
    assert choose("union_topk", given_).tolist() == sorted(best, key=lambda row: (-best[row], row))[:budget]


@pytest.mark.parametrize("block_rows", [1, 37, 8192])
def test_the_classifiers_ranking_is_that_of_its_scores(
    features: Features, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (context, classifier_module):
        monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    given_ = choice(features, 40, removed=(0, 6))
    open_rows = np.setdiff1d(np.arange(ROWS), [*SKIPPED, 0, 6])
    weights, _ = separate(given_.queries, features.take(open_rows))  # the sample is the pool
    scores = features.take(open_rows).astype(np.float64) @ weights
    assert choose("classifier", given_).tolist() == open_rows[np.argsort(-scores, kind="stable")][:40].tolist()


def test_ties_go_to_the_lower_row(tmp_path: Path) -> None:
    vectors = np.tile(np.eye(4, dtype=np.float32)[:2], (50, 1))
    embed(tmp_path, 100, lambda first, last: (vectors[first:last], []), 0.0, 30)
    held, query = Features.open(tmp_path), np.eye(4, dtype=np.float32)[:1]
    given_ = SelectionContext(held, query, 60, 0, FilteredLists(partial(search, query, held), held.embedded))
    expected = [*range(0, 100, 2), *range(1, 20, 2)]
    assert choose("union_topk", given_).tolist() == choose("classifier", given_).tolist() == expected


def test_clusters_are_those_of_the_vectors(features: Features) -> None:
    vectors = features.take(np.setdiff1d(np.arange(ROWS), SKIPPED))
    label, _ = nearest(vectors, centroids(vectors, 3, 0, "cpu"), "cpu")
    truth = np.setdiff1d(np.arange(ROWS), SKIPPED) % 3
    pairs, counts = np.unique(np.stack([label, truth]), axis=1, return_counts=True)
    assert pairs.shape[1] >= 3
    assert np.sort(counts)[-3:].sum() > 0.97 * len(vectors)


def test_k_means_is_lloyds(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = features.take(np.setdiff1d(np.arange(ROWS), SKIPPED))
    monkeypatch.setattr(cluster_module, "ROUNDS", 0)
    slow = centroids(vectors, 7, 5, "cpu").astype(np.float64)
    for _ in range(3):
        label = np.array([max(range(7), key=lambda c: float(slow[c] @ vector)) for vector in vectors])
        sums = np.stack([vectors[label == c].sum(0, dtype=np.float64) for c in range(7)])
        slow = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    monkeypatch.setattr(cluster_module, "ROUNDS", 3)
    np.testing.assert_allclose(centroids(vectors, 7, 5, "cpu"), slow, atol=1e-5)


def test_a_cluster_that_runs_empty_is_given_another_vector() -> None:
    vectors = unit(np.array([[1.0, 0], [1, 0], [1, 0], [1, 0.01], [0, 1]]))
    for seed in range(10):
        centres = centroids(vectors, 3, seed, "cpu")
        assert np.isfinite(centres).all()
        assert nearest(vectors, centres, "cpu")[1].min() > 0.99


@given(
    clusters=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), min_size=1, max_size=8),
    budget=st.integers(0, 80),
)
def test_quotas_are_proportional_until_a_cluster_is_full(clusters: list[tuple[int, int]], budget: int) -> None:
    mass, sizes = np.array(clusters).T
    given_ = quotas(mass, sizes, budget)
    assert given_.sum() == min(budget, sizes[mass > 0].sum())
    assert (given_ <= sizes).all()
    assert not given_[mass == 0].any()
    open_ = np.flatnonzero((given_ < sizes) & (mass > 0))
    per_mass = given_[open_] / mass[open_]
    rounds = len(clusters) + 1  # each may round by one
    for a, b in zip(open_, per_mass, strict=True):
        assert (b * mass[a] >= per_mass.max(initial=0) * mass[a] - rounds * (1 + mass[a])) or len(open_) < 2


def test_quotas_of_clusters_that_hold_enough_are_their_shares() -> None:
    assert quotas(np.array([5, 3, 2, 0]), np.full(4, 100), 20).tolist() == [10, 6, 4, 0]
    assert quotas(np.array([5, 3, 2, 0]), np.array([4, 100, 100, 9]), 20).tolist() == [4, 10, 6, 0]


def test_every_prefix_of_a_draw_is_in_proportion() -> None:
    label = np.random.default_rng(0).integers(-1, 4, 4000).astype(np.int32)
    rows = by_mass(label, np.array([6, 3, 1, 0]), np.zeros(4), 400, seed=1)
    for length in (50, 100, 200, 400):
        shares = np.bincount(label[rows[:length]], minlength=4) / length
        np.testing.assert_allclose(shares, [0.6, 0.3, 0.1, 0], atol=0.03)
    assert by_mass(label, np.array([6, 3, 1, 0]), np.zeros(4), 400, seed=2).tolist() != rows.tolist()


def test_clusters_next_to_the_task_follow_when_its_own_are_used_up() -> None:
    label = np.repeat(np.arange(4), 10).astype(np.int32)
    rows = by_mass(label, np.array([0, 2, 0, 0]), np.array([0.1, 1.0, 0.3, 0.2]), 35, seed=0)
    assert [label[rows[i : i + 10]].tolist() for i in (0, 10, 20, 30)] == [[1] * 10, [2] * 10, [3] * 10, [0] * 5]
