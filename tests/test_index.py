"""Exact search equals sorting everything in exact arithmetic, however it is cut into blocks."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sept.errors import ConfigError, DataError
from sept.retrieval import candidates, compact, index
from sept.retrieval.candidates import Bins, Candidates, exact_queries, radix_argsort
from sept.retrieval.compact import Compact
from sept.retrieval.embedding import embed
from sept.retrieval.features import Features
from sept.retrieval.index import merge, search, search_many
from sept.retrieval.scan import Arithmetic, Hits, Products
from sept.retrieval.select import Ranked
from sept.retrieval.shards import Skip, residual

ARITHMETICS = [Arithmetic(torch.float32), Arithmetic(torch.bfloat16)]


def unit(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    vectors = rng.standard_normal((rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def store(folder: Path, vectors: np.ndarray, skipped: list[int], rows_per_shard: int = 64) -> Features:
    vectors = vectors.copy()
    vectors[skipped] = 0
    skips = [Skip(row, f"{row}.jpg", "lost") for row in skipped]
    embed(folder, len(vectors), lambda a, b: (vectors[a:b], [s for s in skips if a <= s.row < b]), 1.0, rows_per_shard)
    return Features.open(folder)


def brute_force(queries: np.ndarray, vectors: np.ndarray, skipped: list[int], depth: int) -> Ranked:
    """All scores as integers (stored vectors are multiples of 2**-24, queries rounded to 2**-28), then a full sort."""
    whole_queries = np.rint(queries.astype(np.float64) * 2**28).astype(np.int64)
    whole_vectors = (vectors.astype(np.float16).astype(np.float64) * 2**24).astype(np.int64)
    scores = whole_queries @ whole_vectors.T
    kept = np.setdiff1d(np.arange(len(vectors)), skipped)
    order = np.stack([np.lexsort((kept, -row[kept])) for row in scores])[:, :depth]
    return Ranked(kept[order], np.take_along_axis(scores, kept[order], 1) / 2.0**52)


def assert_same(found: Ranked, wanted: Ranked) -> None:
    np.testing.assert_array_equal(found.rows, wanted.rows)
    np.testing.assert_array_equal(found.scores, wanted.scores)


def copies(draw: st.DrawFn, rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Vectors of which many are copies or near-copies of others."""
    distinct, noise = draw(st.integers(1, rows)), draw(st.sampled_from([0.0, 1e-6, 1e-3]))
    vectors = unit(rng, distinct, dim)[rng.integers(0, distinct, rows)] + noise * unit(rng, rows, dim)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_search_equals_brute_force_with_copies_and_near_copies(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, dim = data.draw(st.integers(1, 400)), data.draw(st.integers(2, 24))
    vectors = copies(data.draw, rng, rows, dim)
    queries = np.concatenate([unit(rng, 3, dim), vectors[rng.integers(0, rows, 3)]])
    skipped = sorted(rng.choice(rows, data.draw(st.integers(0, rows - 1)) // 4, replace=False).tolist())
    depth = data.draw(st.integers(1, rows))
    wanted = brute_force(queries, vectors, skipped, depth)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "SPARE_LEAST", data.draw(st.integers(1, 64)))  # small logs overflow often
        patch.setattr(candidates, "SPARE_SHARE", data.draw(st.integers(1, 2)))
        patch.setattr(candidates, "BINS", data.draw(st.sampled_from([4, 64, 4096])))
        patch.setattr(index, "QUERIES_PER_PRODUCT", data.draw(st.integers(1, 7)))
        patch.setattr(index, "SAMPLE_ROWS", data.draw(st.integers(1, 40)))
        patch.setattr(index, "SAMPLED_POOL", data.draw(st.integers(1, 4)))
        patch.setattr(index, "GUESS_SIGMAS", data.draw(st.sampled_from([-1.0, 0.0, 3.0])))  # wrong guesses as well
        numbers = data.draw(st.sampled_from(ARITHMETICS))
        patch.setattr(index, "arithmetic", lambda device: numbers)
        features = store(Path(folder), vectors, skipped, data.draw(st.integers(50, 500)))
        memory, block_rows = data.draw(st.sampled_from([1, 100_000, 2**30])), data.draw(st.integers(1, 500))
        copy = None
        if data.draw(st.booleans()):
            compact.build(Path(folder) / "int8", features)
            copy = Compact.open(Path(folder) / "int8", features)
        found = search(queries, features, depth, block_rows=block_rows, memory=memory, compact=copy)
        assert_same(found, wanted)


@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_parts_of_a_pool_merge_to_the_whole(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    vectors = copies(data.draw, rng, 90, 6)
    depth, parts = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 6))
    with tempfile.TemporaryDirectory() as folder:
        features = store(Path(folder), vectors, [3, 40, 41], 15)
        shares = [features.part(i, parts) for i in range(parts)]
        assert [first for first, _ in shares] == np.cumsum([0, *(share.rows for _, share in shares[:-1])]).tolist()
        found = merge([(first, search(vectors[:4], share, depth)) for first, share in shares], depth)
        assert_same(found, brute_force(vectors[:4], vectors, [3, 40, 41], depth))
        with pytest.raises(ConfigError, match="6 shards cannot be split over 7 machines"):
            features.part(0, 7)


def test_tasks_that_share_a_scan_find_what_each_finds_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    features = store(tmp_path, unit(rng, 600, 16), [5], 250)
    tasks = [(unit(rng, count, 16), depth) for count, depth in [(9, 30), (1, 1000), (40, 3)]]
    alone = [search(queries, features, depth) for queries, depth in tasks]
    monkeypatch.setattr(index, "QUERIES_PER_PRODUCT", 8)
    done: list[int] = []
    for memory in (2**30, 400_000):  # the second in several turns
        for found, wanted in zip(search_many(tasks, features, memory=memory, progress=done.append), alone, strict=True):
            assert_same(found, wanted)
        assert done[-1] == 600
        assert done == sorted(done)
        done.clear()


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=str)
def test_a_guess_that_was_too_high_is_noticed(tmp_path: Path, arithmetic: Arithmetic) -> None:
    rng = np.random.default_rng(9)
    vectors, queries = unit(rng, 200, 16), exact_queries(unit(rng, 2, 16))
    features = store(tmp_path, vectors, [], 200)
    part, products = Candidates(features, queries, 10, arithmetic, features.residual), Products()
    scores = queries @ vectors.T
    part.expect(np.array([-np.inf, np.sort(scores[1])[-5]]))  # of query 1 only 5 rows reach it
    numbers = [torch.from_numpy(each).to(arithmetic.dtype) for each in (queries, vectors.astype(np.float16))]
    part.add(products.reaching(products(*numbers, np.empty(0, np.int64)), part.cut), 0)
    assert part.ranked()[2].tolist() == [True, False]


@given(data=st.data())
def test_an_edge_is_the_highest_that_enough_scores_reach(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    depth, sizes = data.draw(st.integers(1, 50)), data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    bins, seen = Bins(3, depth), np.empty((3, 0), np.float32)
    for size in sizes:
        scores = rng.uniform(-1, 1, (3, size)).astype(np.float32)
        seen = np.concatenate([seen, scores], axis=1)
        bins.add(Hits.at(np.arange(3 * size), scores.ravel(), scores.shape))
    edges = bins.edges()
    if seen.shape[1] < depth:
        assert (edges == -np.inf).all()
        return
    kth = np.sort(seen, axis=1)[:, -depth]
    width = (candidates.HIGHEST - candidates.LOWEST) / candidates.BINS
    assert ((edges <= kth) & (kth < edges + 1.1 * width)).all()


@given(st.lists(st.integers(0, 2**40)))
def test_radix_argsort_is_a_stable_sort(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    assert radix_argsort(array).tolist() == np.argsort(array, kind="stable").tolist()


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=str)
def test_sums_are_as_close_as_promised(arithmetic: Arithmetic) -> None:
    rng = np.random.default_rng(10)
    queries, vectors = exact_queries(unit(rng, 50, 768)), unit(rng, 3000, 768).astype(np.float16)
    stored = residual(vectors) if arithmetic.dtype == torch.bfloat16 else 0.0
    found = Products()(
        torch.from_numpy(queries).float().to(arithmetic.dtype),
        torch.from_numpy(vectors).to(arithmetic.dtype),
        np.array([7]),
    )
    off = np.abs(found.double().numpy() - queries @ vectors.astype(np.float64).T)[:, 8:]
    error = arithmetic.error(queries, stored)[:, None]
    assert (off <= error + arithmetic.rounding * np.abs(found.double().numpy()[:, 8:])).all()
    assert (found[:, 7] == -3).all()


def test_copies_across_the_cut_resolve_to_the_lowest_rows(tmp_path: Path) -> None:
    vectors = np.repeat(unit(np.random.default_rng(0), 2, 8), 3000, axis=0)  # far more copies than spare places
    features = store(tmp_path, vectors, [3000, 3002], rows_per_shard=1000)
    found = search(vectors[-1:], features, 100, block_rows=777)
    assert found.rows[0].tolist() == [3001, *range(3003, 3102)]
    assert len(set(found.scores[0].tolist())) == 1


def test_lists_do_not_depend_on_block_size_threads_or_training_precision(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    features, queries = store(tmp_path, unit(rng, 5000, 64), [7], rows_per_shard=2000), unit(rng, 20, 64)
    wanted = search(queries, features, 300)
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("medium")
        within: list[str] = []
        found = search(
            queries,
            features,
            300,
            block_rows=333,
            progress=lambda _: within.append(torch.get_float32_matmul_precision()),
        )
        assert_same(found, wanted)
        assert set(within) == {"highest"}
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
    shorter = search(queries, features, 17)
    np.testing.assert_array_equal(shorter.rows, wanted.rows[:, :17])


def test_a_list_is_as_deep_as_the_readable_pool(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    features = store(tmp_path, unit(rng, 30, 4), [0, 29])
    found = search(unit(rng, 2, 4), features, 1000)
    assert [sorted(rows) for rows in found.rows.tolist()] == [list(range(1, 29))] * 2


def test_progress_counts_the_rows_read(tmp_path: Path) -> None:
    rng, done = np.random.default_rng(3), []
    search(unit(rng, 1, 4), store(tmp_path, unit(rng, 30, 4), [], 20), 5, block_rows=15, progress=done.append)
    assert done == [15, 20, 30]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 2.0])
def test_a_query_that_is_not_a_unit_vector_is_named(tmp_path: Path, value: float) -> None:
    rng = np.random.default_rng(4)
    queries = unit(rng, 5, 4)
    queries[3] = value
    with pytest.raises(DataError, match="query 3 has length"):
        search(queries, store(tmp_path, unit(rng, 9, 4), []), 5)


def test_queries_of_another_dimension_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(ConfigError, match=r"shape \(2, 6\).*4 dimensions"):
        search(unit(rng, 2, 6), store(tmp_path, unit(rng, 9, 4), []), 5)


def test_a_product_with_too_few_bits_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    vectors, queries = unit(rng, 50, 16), unit(rng, 1, 16)
    part, products = Candidates(store(tmp_path, vectors, []), exact_queries(queries), 5, Arithmetic(), 0.0), Products()
    scores = torch.from_numpy(queries).bfloat16().float() @ torch.from_numpy(vectors).bfloat16().float().T
    part.add(products.reaching(scores, part.cut), 0)
    with pytest.raises(AssertionError, match="fewer bits"):
        part.ranked()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_lists(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    features, queries = store(tmp_path, unit(rng, 20_000, 768), [7], rows_per_shard=7000), unit(rng, 50, 768)
    torch.set_float32_matmul_precision("high")
    try:
        assert_same(search(queries, features, 500, device="cuda"), search(queries, features, 500))
    finally:
        torch.set_float32_matmul_precision("highest")
