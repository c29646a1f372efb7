"""Algorithm 1 equals its pseudo-code, nests, and needs no more depth than it asks for."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sept.errors import ConfigError, DataError
from sept.retrieval import select as module
from sept.retrieval.select import Ranked, predicted_depth, random_subset, round_robin, select
from sept.retrieval.selections import COPIES, SCHEMA, Selection, load_selection, save_copies, save_selection, statistics


def algorithm_1(ranked: np.ndarray, budget: int) -> list[tuple[int, int, int]]:
    """SEPT Alg. 1, lines 6-17, word for word: (row, query, rank) in the order chosen."""
    chosen: list[tuple[int, int, int]] = []
    rows: set[int] = set()
    for j in range(ranked.shape[1]):
        for i in range(len(ranked)):
            if ranked[i, j] not in rows:
                rows.add(ranked[i, j])
                chosen.append((int(ranked[i, j]), i, j))
                if len(rows) >= budget:
                    return chosen
    return chosen


@st.composite
def full_lists(draw: st.DrawFn) -> Ranked:
    """Complete ranked lists of a few queries over a small pool, with alike queries and without."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    queries, rows = draw(st.integers(1, 8)), draw(st.integers(1, 40))
    kinds = draw(st.integers(1, queries))
    scores = rng.random((kinds, rows))[rng.integers(0, kinds, queries)]
    scores = scores + draw(st.sampled_from([0.0, 0.1, 3.0])) * rng.random((queries, rows))
    order = np.argsort(-scores, axis=1, kind="stable")
    return Ranked(order, np.take_along_axis(scores, order, 1))


def top_of(lists: Ranked):
    return lambda depth: Ranked(lists.rows[:, :depth], lists.scores[:, :depth])


def picks(selection: Selection) -> list[tuple[int, int, int]]:
    return list(zip(selection.rows.tolist(), selection.query.tolist(), selection.rank.tolist(), strict=True))


@given(
    ranked=st.tuples(st.integers(1, 6), st.integers(0, 9)).flatmap(
        lambda shape: st.lists(
            st.lists(st.integers(0, 12), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
        )
    ),
    budget=st.integers(1, 30),
)
def test_round_robin_is_algorithm_1(ranked: list[list[int]], budget: int) -> None:
    lists = np.array(ranked, dtype=np.int64).reshape(len(ranked), -1)
    places = round_robin(lists, budget)
    rank, query = np.divmod(places, len(lists))
    found = list(zip(lists[query, rank].tolist(), query.tolist(), rank.tolist(), strict=True))
    assert found == algorithm_1(lists, budget)


@given(full_lists(), st.data())
def test_a_selection_is_the_same_whatever_depth_it_starts_at(lists: Ranked, data: st.DataObject) -> None:
    queries, rows = lists.rows.shape
    budget = data.draw(st.integers(1, rows))
    first = data.draw(st.integers(1, rows + 5))
    found = select(top_of(lists), queries, budget, rows, first)
    assert picks(found) == algorithm_1(lists.rows, budget)


def test_a_sample_of_the_pool_predicts_the_depth_so_that_one_scan_is_enough() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((6, 24))
    pool = np.concatenate(
        [c + 0.6 * rng.standard_normal((2_000, 24)) for c in centres] + [rng.standard_normal((8_000, 24))]
    )
    pool = rng.permutation(pool)
    queries = np.repeat(centres, 5, axis=0) + 0.6 * rng.standard_normal((30, 24))

    def lists(vectors: np.ndarray):
        scores = queries @ vectors.T
        order = np.argsort(-scores, axis=1, kind="stable")
        return top_of(Ranked(order, np.take_along_axis(scores, order, 1)))

    budget, sample = 3_000, pool[::16]
    needed = select(lists(pool), 30, budget, len(pool)).depth
    predicted = predicted_depth(lists(sample), 30, budget, len(sample), len(pool))
    assert needed <= predicted <= 1.5 * needed


def test_round_robin_takes_rows_of_any_size() -> None:
    lists = np.array([[2**40, 5, 2**40 + 1], [2**40, 2**40 + 1, 0]])
    assert round_robin(lists, 10).tolist() == [0, 2, 3, 5]


@settings(deadline=None)
@given(lists=full_lists(), data=st.data())
def test_select_needs_no_full_lists_and_never_depends_on_the_depth(lists: Ranked, data: st.DataObject) -> None:
    queries, available = lists.rows.shape
    budget = data.draw(st.integers(1, available))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DEPTH_MARGIN", data.draw(st.sampled_from([0.01, 0.5, 1.5, 100.0])))
        selection = select(top_of(lists), queries, budget, available)
    assert picks(selection) == algorithm_1(lists.rows, budget)
    assert selection.similarity.tolist() == lists.scores[selection.query, selection.rank].tolist()
    assert selection.depth == selection.rank.max() + 1
    larger = select(top_of(lists), queries, available, available)
    assert picks(larger)[:budget] == picks(selection)
    assert sorted(larger.rows.tolist()) == list(range(available))


def test_select_searches_deeper_only_when_the_lists_run_out() -> None:
    same = np.tile(np.arange(100), (10, 1))
    asked: list[int] = []

    def search(depth: int) -> Ranked:
        asked.append(depth)
        return Ranked(same[:, :depth], np.zeros((10, depth)))

    assert select(search, 10, 20, 100).rows.tolist() == list(range(20))
    assert asked == [3, 6, 12, 24]


@pytest.mark.parametrize("budget", [0, 101])
def test_a_budget_the_pool_cannot_meet_is_refused(budget: int) -> None:
    with pytest.raises(ConfigError, match=rf"budget\.images={budget} but the pool holds only 100 readable images"):
        select(lambda depth: pytest.fail("searched"), 10, budget, 100)


@given(rows=st.integers(1, 200), seed=st.integers(0, 2**63), data=st.data())
def test_random_subsets_nest_and_never_repeat(rows: int, seed: int, data: st.DataObject) -> None:
    budget = data.draw(st.integers(1, rows))
    whole = random_subset(rows, rows, seed)
    assert sorted(whole.tolist()) == list(range(rows))
    assert random_subset(rows, budget, seed).tolist() == whole[:budget].tolist()


GOLDEN = [818, 838, 793, 869, 319]


def test_random_subsets_are_fixed_for_ever_and_differ_by_seed() -> None:
    assert random_subset(1000, 5, 0).tolist() == GOLDEN
    assert random_subset(1000, 5, 1).tolist() != GOLDEN


def test_random_subsets_favour_no_row() -> None:
    hits = np.bincount(np.concatenate([random_subset(50, 10, seed) for seed in range(2000)]), minlength=50)
    assert abs(hits - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)  # five standard deviations


def test_a_random_subset_larger_than_the_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"budget\.images=11 but the pool holds only 10 images"):
        random_subset(10, 11, 0)


FOUND = Selection(np.array([7, 2, 9]), np.array([0, 2, 0]), np.array([0, 0, 1]), np.array([0.75, 0.5, 0.25]), 2)


def test_a_selection_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "selection.parquet"
    save_selection(path, FOUND.rows, ["g", "b", "i"], FOUND, ["rose", "iris", "ivy"])
    assert load_selection(path).to_pylist() == [
        {"row": 7, "pool_key": "g", "rank": 0, "query": "rose", "similarity": 0.75},
        {"row": 2, "pool_key": "b", "rank": 0, "query": "ivy", "similarity": 0.5},
        {"row": 9, "pool_key": "i", "rank": 1, "query": "rose", "similarity": 0.25},
    ]


def test_copies_are_named_by_test_image_and_by_row(tmp_path: Path) -> None:
    path = tmp_path / COPIES
    save_copies(path, FOUND.rows, ["g", "b", "i"], ["t.jpg", None, None], np.array([0, 1, 0]))
    assert pq.read_table(path).to_pylist() == [
        {"row": 7, "pool_key": "g", "copy_of_test": "t.jpg", "copy_of": None},
        {"row": 2, "pool_key": "b", "copy_of_test": None, "copy_of": None},
        {"row": 9, "pool_key": "i", "copy_of_test": None, "copy_of": 7},  # it shows what the first, row 7, does
    ]


def test_a_random_selection_has_no_query(tmp_path: Path) -> None:
    path = tmp_path / "selection.parquet"
    save_selection(path, np.array([4, 1]), ["d", "a"])
    table = load_selection(path)
    assert table.schema.equals(SCHEMA)
    assert table.column("row").to_pylist() == [4, 1]
    assert [table.column(name).null_count for name in ("rank", "query", "similarity")] == [2, 2, 2]


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "selection.parquet"
    save_selection(path, np.array([4, 1]), ["d", "a"])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"selection\.parquet: not a selection"):
        load_selection(path)
    pq.write_table(pa.table({"row": [1]}), path)
    with pytest.raises(DataError, match=r"its columns are \['row'\]"):
        load_selection(path)
    with pytest.raises(DataError, match="none"):
        load_selection(tmp_path / "none")


def test_statistics_count_what_each_query_brought() -> None:
    found = statistics(FOUND, 3)
    assert (found["images"], found["queries"], found["depth"], found["queries_without_images"]) == (3, 3, 2, 1)
    assert (found["similarity_min"], found["similarity_median"], found["similarity_max"]) == (0.25, 0.5, 0.75)
    assert found["similarity_p05"] == pytest.approx(0.275)
    assert found["similarity_p95"] == pytest.approx(0.725)
    assert [found[f"images_per_query_{name}"] for name in ("min", "median", "max")] == [0, 1, 2]
