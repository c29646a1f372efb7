"""Near-duplicates are skipped while a selection is drawn: exactly, whatever the blocks, and the budget is still met."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_selectors import ROWS, SKIPPED, chooser, world

from sept.errors import ConfigError
from sept.retrieval import apart as module
from sept.retrieval.apart import Apart
from sept.retrieval.embedding import embed
from sept.retrieval.features import Features
from sept.retrieval.select import find_leaks
from sept.retrieval.shards import Skip
from sept.selectors import SELECTORS, Ordered

ORDERED = [name for name, entry in SELECTORS.items() if issubclass(entry.settings, Ordered)]
COPIES = 3  # of every vector


def stored(folder: Path, vectors: np.ndarray, skipped: tuple[int, ...] = ()) -> Features:
    def encode(first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
        return vectors[first:last], [Skip(row, str(row), "bad") for row in skipped if first <= row < last]

    embed(folder, len(vectors), encode, 0.5, 200)
    return Features.open(folder)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Features:
    return stored(tmp_path_factory.mktemp("features"), world(), SKIPPED)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Features:
    """Of every vector near and exact copies, spread over the pool."""
    vectors, rng = world()[: ROWS // COPIES], np.random.default_rng(1)
    moved = vectors + rng.normal(0, 0.01, vectors.shape)
    moved /= np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)
    vectors[list(SKIPPED[:1])] = moved[list(SKIPPED[:1])] = 0
    every = np.concatenate([vectors, moved, vectors]).astype(np.float32)
    zero = tuple(np.flatnonzero(~every.any(axis=1)).tolist())
    return stored(tmp_path_factory.mktemp("crowded"), every, zero)


def distances(features: Features, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Cosine distances (n, m)."""
    a, b = (features.take(each).astype(np.float64) for each in (rows, others))
    squares = (a * a).sum(axis=1)[:, None] * (b * b).sum(axis=1)
    return 1 - (a[:, None] * b).sum(axis=2) / np.sqrt(squares)


def slowly(features: Features, order: np.ndarray, least: float) -> list[int]:
    """One row after the other, compared with all before that were kept."""
    between, kept = distances(features, order, order), list[int]()
    for place in range(len(order)):
        if all(between[place, other] >= least for other in kept):
            kept.append(place)
    return order[kept].tolist()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_are_accepted_as_one_by_one_in_blocks_of_any_size(crowded: Features, data: st.DataObject) -> None:
    readable = np.setdiff1d(np.arange(ROWS), crowded.skipped)
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(readable)[:150]
    least = data.draw(st.sampled_from([1e-6, 1e-3, 0.01, 0.1, 0.5]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=3)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS_AT_ONCE", data.draw(st.sampled_from([1, 7, 64, 1024])))
        patch.setattr(module, "ACCEPTED_AT_ONCE", data.draw(st.sampled_from([1, 9, 50, 8192])))
        accept = Apart(crowded, least)
        kept = np.concatenate([accept(part) for part in np.split(order, cuts)])
        expected, most = slowly(crowded, order, least), data.draw(st.integers(1, 60))
        enough = Apart(crowded, least)(order, most)
    assert order[kept].tolist() == expected
    assert enough.tolist() == kept[: len(enough)].tolist()
    assert enough.sum() >= min(most, len(expected))


def test_products_in_float32_decide_nothing_close(tmp_path: Path) -> None:
    """Distances that float32 cannot tell from the limit, on both sides of it."""
    vectors = np.random.default_rng(0).normal(0, 1, (40, 300))
    features = stored(tmp_path, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    between = distances(features, np.array([0]), np.arange(1, 40))[0]
    for row, limit in enumerate(between.tolist(), start=1):
        for least, accepted in ((limit, True), (np.nextafter(limit, 2), False)):
            assert Apart(features, least)(np.array([0, row])).tolist() == [True, accepted]


def limited(name: str, features: Features, budget: int, least: float):
    made = chooser(name, features, budget)
    made.least = least
    return made


@pytest.mark.parametrize("name", ORDERED)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_budget_is_met_by_rows_that_are_apart(crowded: Features, name: str, data: st.DataObject) -> None:
    least, budget = data.draw(st.sampled_from([1e-6, 1e-3, 0.01])), data.draw(st.integers(1, 120))
    removed = np.array(sorted(data.draw(st.sets(st.integers(0, ROWS - 1), max_size=30)) - {*crowded.skipped}), np.int64)
    made = limited(name, crowded, budget, least)
    looked_at = made(removed)
    everything = chooser(name, crowded, crowded.embedded - len(removed))(removed)
    assert made.rows.tolist() == slowly(crowded, everything, least)[:budget]
    assert len(made.rows) == budget == len({*made.rows.tolist()})
    assert not {*looked_at.tolist()} & {*removed.tolist(), *crowded.skipped.tolist()}
    assert made.facts == {"near_duplicates_skipped": len(looked_at) - budget}
    if made.found is not None:
        assert made.found.rows.tolist() == made.rows.tolist()
        assert made.found.depth == made.found.rank.max() + 1


@pytest.mark.parametrize("name", ORDERED)
def test_nothing_is_skipped_where_all_are_apart(features: Features, name: str) -> None:
    plain, made = chooser(name, features, 100), limited(name, features, 100, 1e-6)
    assert plain(np.empty(0, np.int64)).tolist() == made(np.empty(0, np.int64)).tolist() == made.rows.tolist()
    assert made.facts == {"near_duplicates_skipped": 0}


@pytest.mark.parametrize("name", ORDERED)
def test_a_pool_that_cannot_meet_the_budget_is_told_in_one_line(crowded: Features, name: str) -> None:
    apart = len(slowly(crowded, chooser(name, crowded, crowded.embedded)(np.empty(0, np.int64)), 0.01))
    assert apart < 300
    with pytest.raises(ConfigError) as refused:
        limited(name, crowded, 300, 0.01)(np.empty(0, np.int64))
    assert str(refused.value) == (
        f"selector.min_distance=0.01: only {apart:,} images of the pool are that far apart, in the order that "
        f"selector={name} draws them, and 300 are wanted: lower it or budget.images"
    )


@pytest.mark.parametrize("name", ["sept", "simcore"])  # rankings that do not depend on the pool
def test_with_leaks_removed_it_is_the_selection_of_a_pool_without_them(crowded: Features, name: str) -> None:
    def leaks(share: float) -> Callable[[np.ndarray], np.ndarray]:
        odd = np.random.default_rng(5).random(ROWS) < share
        return lambda rows: odd[rows]

    made, clean = limited(name, crowded, 60, 0.01), limited(name, crowded, 60, 0.01)
    _, removed = find_leaks(made, leaks(0.4))
    assert len(removed)
    every = np.setdiff1d(np.flatnonzero(leaks(0.4)(np.arange(ROWS))), crowded.skipped)
    clean(every)
    assert made.rows.tolist() == clean.rows.tolist()
