"""Approximate lists are exact but for missing rows, as long as asked for, and never hold what was skipped."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sept.errors import ConfigError, DataError, StorageError
from sept.retrieval import approximate
from sept.retrieval.approximate import cells, compare, ivf, probed, recall
from sept.retrieval.embedding import embed
from sept.retrieval.features import Features
from sept.retrieval.index import search
from sept.retrieval.select import Ranked
from sept.retrieval.shards import Skip

DIM = 16


def unit(rng: np.random.Generator, rows: int, dim: int = DIM) -> np.ndarray:
    vectors = rng.standard_normal((rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(rng: np.random.Generator, rows: int, dim: int = DIM) -> np.ndarray:
    vectors = unit(rng, 40, dim)[rng.integers(0, 40, rows)] + 0.4 * unit(rng, rows, dim)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def store(folder: Path, vectors: np.ndarray, skipped: list[int], rows_per_shard: int = 700) -> Features:
    vectors = vectors.copy()
    vectors[skipped] = 0
    skips = [Skip(row, f"{row}.jpg", "lost") for row in skipped]
    embed(folder, len(vectors), lambda a, b: (vectors[a:b], [s for s in skips if a <= s.row < b]), 1.0, rows_per_shard)
    return Features.open(folder)


def built(folder: Path, features: Features, nlist: int = 64, nprobe: int = 1, **options: int) -> ivf.IvfSq8:
    ivf.build(folder, features, nlist, seed=5, **options)
    return ivf.open_ivf(folder, features, nprobe)


def assert_well_formed(found: Ranked, queries: np.ndarray, features: Features, depth: int) -> None:
    assert found.rows.shape == found.scores.shape == (len(queries), min(depth, features.embedded))
    exact = np.rint(queries.astype(np.float64) * 2**28) / 2**28
    for query, rows, scores in zip(exact, found.rows, found.scores, strict=True):
        assert len(np.unique(rows)) == len(rows)
        assert not np.isin(rows, features.skipped).any()
        np.testing.assert_array_equal(scores, features.take(rows).astype(np.float64) @ query)
        np.testing.assert_array_equal(np.lexsort((rows, -scores)), np.arange(len(rows)))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_lists_are_exact_in_score_and_order_and_all_probes_reach_all_rows(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = data.draw(st.integers(1, 1500))
    vectors = clustered(rng, rows)[rng.integers(0, rows, rows)]  # with copies
    skipped = sorted(rng.choice(rows, data.draw(st.integers(0, rows - 1)) // 3, replace=False).tolist())
    queries = np.concatenate([unit(rng, 3), clustered(rng, 3)])
    with tempfile.TemporaryDirectory() as folder:
        features = store(Path(folder, "features"), vectors, skipped)
        index = built(Path(folder, "index"), features, part_rows=data.draw(st.integers(100, 2000)))
        depth = data.draw(st.integers(1, rows + 5))
        assert_well_formed(index.search(queries, depth), queries, features, depth)
        everything, wanted = index.search(queries, rows), search(queries, features, rows)
        np.testing.assert_array_equal(everything.rows, wanted.rows)
        np.testing.assert_array_equal(everything.scores, wanted.scores)


def test_full_probing_equals_the_exact_search(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    features, queries = store(tmp_path / "features", clustered(rng, 8000), [3, 700, 7999]), clustered(rng, 20)
    index = built(tmp_path / "index", features, nlist=1000, nprobe=1000, part_rows=3000)  # trained on (nearly) all
    found, wanted = index.search(queries, 500), search(queries, features, 500)
    np.testing.assert_array_equal(found.rows, wanted.rows)  # the spare rows cover what 8 bits confuse
    np.testing.assert_array_equal(found.scores, wanted.scores)
    assert index.facts["index_probes_most"] == 7997 // 39


def test_more_probes_find_more(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    features, queries = store(tmp_path / "features", unit(rng, 6000), []), unit(rng, 20)
    wanted = search(queries, features, 20)
    ivf.build(tmp_path / "index", features, 64, seed=0)
    found = [ivf.open_ivf(tmp_path / "index", features, nprobe).search(queries, 20) for nprobe in (1, 8, 64)]
    shares = [recall(each, wanted, 20) for each in found]
    assert shares[0] < shares[1] < shares[2] == 1.0


def test_parts_give_what_one_index_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    features, queries = store(tmp_path / "features", clustered(rng, 5000), [17]), clustered(rng, 10)
    one = built(tmp_path / "one", features, nprobe=4).search(queries, 40)
    many = built(tmp_path / "many", features, nprobe=4, part_rows=999).search(queries, 40)
    np.testing.assert_array_equal(one.rows, many.rows)


def test_depth_beyond_the_gpu_limit_is_not_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    features, queries = store(tmp_path / "features", unit(rng, 6000, 4), [5]), unit(rng, 3, 4)
    index = built(tmp_path / "index", features)  # one cell of 64 holds about 100 rows
    found = index.search(queries, ivf.GPU_MOST + 500)
    assert_well_formed(found, queries, features, ivf.GPU_MOST + 500)
    assert 16 < index.facts["index_probes_most"] <= 64


def test_the_index_is_a_function_of_the_seed(tmp_path: Path) -> None:
    features = store(tmp_path / "features", clustered(np.random.default_rng(5), 4000), [1])
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        ivf.build(tmp_path / name, features, 64, seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["trained.faiss"] != files(tmp_path / "c")["trained.faiss"]


KILLED = """
import os, signal, sys
from pathlib import Path
from sept.retrieval.approximate import ivf
from sept.retrieval.features import Features
assert "faiss" not in sys.modules, "an exact search does without"
def stop(rows):
    if rows >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
ivf.build(Path(sys.argv[1]), Features.open(Path(sys.argv[2])), 64, 5, part_rows=1000, progress=stop)
"""


def test_a_killed_build_goes_on_to_the_same_files(tmp_path: Path) -> None:
    features = store(tmp_path / "features", clustered(np.random.default_rng(6), 4500), [1000])
    ivf.build(tmp_path / "whole", features, 64, 5, part_rows=1000)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(tmp_path / "features"), "2000"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with pytest.raises(DataError, match="not a finished index"):
        ivf.open_ivf(tmp_path / "killed", features, 1)
    before = {name: os.stat(tmp_path / "killed" / name).st_mtime_ns for name in ("trained.faiss", "part-000001.faiss")}
    ivf.build(tmp_path / "killed", features, 64, 5, part_rows=1000)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert before == {name: os.stat(tmp_path / "killed" / name).st_mtime_ns for name in before}


def test_a_folder_of_other_features_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    features, other = store(tmp_path / "a", unit(rng, 500), []), store(tmp_path / "b", unit(rng, 501), [])
    ivf.build(tmp_path / "index", features, 8, 0)
    with pytest.raises(DataError, match=r"rows 500, now 501.*build it again"):
        ivf.build(tmp_path / "index", other, 8, 0)
    with pytest.raises(DataError, match="rows 500, now 501"):
        ivf.open_ivf(tmp_path / "index", other, 1)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    features = store(tmp_path / "features", unit(rng, 500), [])
    index = built(tmp_path / "index", features)
    part = tmp_path / "index" / "part-000000.faiss"
    os.truncate(part, 1000)
    with pytest.raises(DataError, match=r"part-000000\.faiss: faiss cannot read it"):
        index.search(unit(rng, 1), 5)


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    features = store(tmp_path / "features", unit(np.random.default_rng(9), 500), [])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))  # enough for the plan, not for what is trained
    try:
        with pytest.raises(StorageError, match=r"cannot write .*\.faiss"):
            ivf.build(tmp_path / "index", features, 8, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_index_that_lost_rows_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    features = store(tmp_path / "features", unit(rng, 300), [])

    def fetch(queries: np.ndarray, wanted: int, probes: int) -> np.ndarray:
        return np.full((len(queries), wanted), -1)

    with pytest.raises(DataError, match="returned 0 rows of 300"):
        approximate.filled(fetch, unit(rng, 2), features, 10, 1, 4)


@pytest.mark.parametrize(("bad", "error"), [(np.nan, DataError), (2.0, DataError), (None, ConfigError)])
def test_queries_are_checked(tmp_path: Path, bad: float | None, error: type[Exception]) -> None:
    rng = np.random.default_rng(11)
    index = built(tmp_path / "index", store(tmp_path / "features", unit(rng, 300), []))
    queries = unit(rng, 2, DIM + (bad is None))
    queries[1] = queries[1] if bad is None else bad
    with pytest.raises(error, match="dimensions" if bad is None else "query 1 has length"):
        index.search(queries, 5)


def test_cells_and_probes_keep_their_share_in_small_pools() -> None:
    assert [cells(16_384, rows) for rows in (1, 38, 39, 200_000, 640_000, 155_000_000)] == [1, 1, 1, 5128, 16384, 16384]
    assert [probed(256, 16_384, made) for made in (1, 64, 65, 5128, 16_384)] == [1, 1, 2, 81, 256]
    with pytest.raises(ConfigError, match=r"index\.nprobe=65 must be between 1 and index\.nlist=64"):
        probed(65, 64, 64)


def test_recall_counts_the_rows_found() -> None:
    exact = Ranked(np.array([[1, 2, 3, 9], [4, 5, 6, 9]]), np.zeros((2, 4)))
    found = Ranked(np.array([[3, 1, 8, 2], [6, 5, 4, 0]]), np.zeros((2, 4)))
    assert recall(found, exact, 3) == 5 / 6
    assert recall(exact, exact, 4) == 1.0


@pytest.mark.parametrize("sample", [7, 1000])
def test_comparison_with_the_exact_scan(tmp_path: Path, sample: int) -> None:
    rng = np.random.default_rng(12)
    features, queries = store(tmp_path / "features", unit(rng, 5000), [3]), unit(rng, 20)
    ivf.build(tmp_path / "index", features, 64, seed=0)

    def facts(nprobe: int) -> dict[str, float | int]:
        return compare(ivf.open_ivf(tmp_path / "index", features, nprobe), features, queries, 1000, sample, seed=1)

    few, all_cells = facts(2), facts(64)
    assert min(all_cells["index_recall"], all_cells["index_kept"]) > 0.998  # 8 bits lose a row in a thousand
    assert 0.0 < few["index_recall"] < 1.0
    assert 0.0 < few["index_kept"] < 1.0
    assert few["index_queries_compared"] == min(sample, 20)
    assert few["index_depth"] == all_cells["index_depth"] >= 50


@pytest.mark.gpu
def test_a_gpu_finds_as_much_and_deeper_searches_fall_back(tmp_path: Path) -> None:
    assert pytest.importorskip("faiss").get_num_gpus(), "install faiss-gpu: milvus-lite puts faiss-cpu in its place"
    rng = np.random.default_rng(13)
    features, queries = store(tmp_path / "features", clustered(rng, 20_000), [7]), clustered(rng, 20)
    ivf.build(tmp_path / "index", features, 64, seed=0, device="cuda")
    index = ivf.open_ivf(tmp_path / "index", features, 64, device="cuda")
    assert recall(index.search(queries, 500), search(queries, features, 500), 500) > 0.999
    assert index.facts["index_on_gpu"]
    assert_well_formed(index.search(queries, 4000), queries, features, 4000)
    assert not index.facts["index_on_gpu"]
