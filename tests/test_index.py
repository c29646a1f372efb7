"""Exact search equals sorting everything in exact arithmetic, however it is cut into blocks."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sept.errors import ConfigError, DataError
from sept.retrieval import index
from sept.retrieval.features import Features, Skip, embed
from sept.retrieval.index import Ranked, search


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


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_search_equals_brute_force_with_copies_and_near_copies(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, dim = data.draw(st.integers(1, 400)), data.draw(st.integers(2, 24))
    distinct = data.draw(st.integers(1, rows))
    noise = data.draw(st.sampled_from([0.0, 1e-6, 1e-3]))
    vectors = unit(rng, distinct, dim)[rng.integers(0, distinct, rows)] + noise * unit(rng, rows, dim)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = np.concatenate([unit(rng, 3, dim), vectors[rng.integers(0, rows, 3)]])
    skipped = sorted(rng.choice(rows, data.draw(st.integers(0, rows - 1)) // 4, replace=False).tolist())
    depth = data.draw(st.integers(1, rows))
    wanted = brute_force(queries, vectors, skipped, depth)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "SPARE_LEAST", data.draw(st.integers(1, 64)))  # small buffers overflow often
        patch.setattr(index, "QUERIES_PER_PRODUCT", data.draw(st.integers(1, 7)))
        features = store(Path(folder), vectors, skipped, data.draw(st.integers(16, 500)))
        assert_same(search(queries, features, depth, block_rows=data.draw(st.integers(1, 500))), wanted)


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
    candidates = index._Candidates(queries, store(tmp_path, vectors, []), 5, "cpu")
    candidates.add(torch.from_numpy(queries).bfloat16().float() @ torch.from_numpy(vectors).bfloat16().float().T, 0)
    with pytest.raises(AssertionError, match="fewer bits"):
        list(candidates.ranked())


@pytest.mark.gpu
def test_a_gpu_gives_the_same_lists(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    features, queries = store(tmp_path, unit(rng, 20_000, 768), [7], rows_per_shard=7000), unit(rng, 50, 768)
    torch.set_float32_matmul_precision("high")
    try:
        assert_same(search(queries, features, 500, device="cuda"), search(queries, features, 500))
    finally:
        torch.set_float32_matmul_precision("highest")
