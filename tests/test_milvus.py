"""Milvus Lite, started here, as the index: resumable, as deep as asked for, and clear when there is no server."""

import fcntl
import hashlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from sept.errors import ConfigError, DataError, StorageError
from sept.retrieval.approximate import compare, milvus, recall, server
from sept.retrieval.embedding import embed
from sept.retrieval.features import Features
from sept.retrieval.index import search
from sept.retrieval.shards import Skip

DIM, ROWS, SKIPPED = 8, 30_000, [0, 5, 29_999]


def unit(rng: np.random.Generator, rows: int, dim: int = DIM) -> np.ndarray:
    vectors = rng.standard_normal((rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def store(folder: Path, rows: int, skipped: list[int], dim: int = DIM) -> Features:
    vectors = unit(np.random.default_rng(rows), rows, dim)
    vectors[skipped] = 0
    skips = [Skip(row, f"{row}.jpg", "lost") for row in skipped]
    embed(folder, rows, lambda a, b: (vectors[a:b], [s for s in skips if a <= s.row < b]), 1.0, 15_000)
    return Features.open(folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Features]:
    folder = tmp_path_factory.mktemp("milvus")
    features = store(folder / "features", ROWS, SKIPPED)
    facts = milvus.build(folder / "index", features, nlist=64)
    assert (facts["added"], facts["cells"]) == (ROWS - len(SKIPPED), 64)
    return folder / "index", features


def hashes(folder: Path) -> dict[str, str]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_all_probes_find_what_the_exact_search_finds(large: tuple[Path, Features]) -> None:
    folder, features = large
    queries = unit(np.random.default_rng(1), 5)
    wanted = search(queries, features, 300)
    with milvus.open_milvus(folder, features, nprobe=64) as index:
        found = index.search(queries, 300)
        assert index.facts["index_type"] in server.INDEX_TYPES
        assert index.facts["index_server"]
    assert recall(found, wanted, 300) > 0.99
    same = found.rows == wanted.rows
    np.testing.assert_array_equal(found.scores[same], wanted.scores[same])
    assert (np.diff(found.scores) <= 0).all()


def test_depth_beyond_the_limit_of_milvus_is_not_cut(large: tuple[Path, Features]) -> None:
    folder, features = large
    queries, depth = unit(np.random.default_rng(2), 2), server.TOP_MOST + 4000
    with milvus.open_milvus(folder, features, nprobe=64) as index:
        found = index.search(queries, depth)
    assert found.rows.shape == (2, depth)
    assert recall(found, search(queries, features, depth), depth) > 0.99


def test_ranges_give_what_one_request_gives(large: tuple[Path, Features], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, features = large
    queries = np.concatenate([unit(np.random.default_rng(3), 2), features.take([100, 20_000])])
    with milvus.open_milvus(folder, features, nprobe=8) as index:
        whole = index.search(queries, 1500)
        monkeypatch.setattr(server, "TOP_MOST", 300)
        monkeypatch.setattr(server, "HITS_PER_REQUEST", 700)
        parted = index.search(queries, 1500)
    np.testing.assert_array_equal(parted.rows, whole.rows)


def test_few_probes_still_fill_the_lists_and_never_with_skipped_rows(tmp_path: Path) -> None:
    features = store(tmp_path / "features", 3000, [1, 2, 2999])
    milvus.build(tmp_path / "index", features, nlist=64)
    queries = unit(np.random.default_rng(4), 3)
    with milvus.open_milvus(tmp_path / "index", features, nprobe=1) as index:
        found = index.search(queries, 3000)
        assert index.facts["index_probes_most"] == 64
    wanted = search(queries, features, 3000)
    np.testing.assert_array_equal(found.rows, wanted.rows)
    np.testing.assert_array_equal(found.scores, wanted.scores)


def test_searching_leaves_the_files_as_they_were(large: tuple[Path, Features]) -> None:
    folder, features = large
    before = hashes(folder)
    with milvus.open_milvus(folder, features, nprobe=1) as index:
        index.search(unit(np.random.default_rng(5), 1), 10)
    assert hashes(folder) == before


def test_comparison_with_the_exact_scan(large: tuple[Path, Features]) -> None:
    folder, features = large
    with milvus.open_milvus(folder, features, nprobe=4) as index:
        facts = compare(index, features, unit(np.random.default_rng(6), 8), 400, sample=4, seed=0)
    assert 0 < facts["index_recall"] < 1
    assert 0 < facts["index_kept"] < 1


KILLED = """
import os, signal, sys
from pathlib import Path
from sept.retrieval.approximate import milvus
from sept.retrieval.features import Features
assert "pymilvus" not in sys.modules, "an extra"
def stop(rows):
    if rows >= 2000:
        os.kill(os.getpid(), signal.SIGKILL)
milvus.build(Path(sys.argv[1]), Features.open(Path(sys.argv[2])), 64, batch_bytes=500 * 32, progress=stop)
"""


def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    features = store(tmp_path / "features", 3300, [700])
    command = [sys.executable, "-c", KILLED, str(tmp_path / "index"), str(tmp_path / "features")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with pytest.raises(DataError, match="not a finished index"), milvus.open_milvus(tmp_path / "index", features, 1):
        pass
    with server.connected(tmp_path / "index", None) as client:  # as if struck within a batch
        client.delete("sept", filter="row >= 1600")
    done: list[int] = []
    milvus.build(tmp_path / "index", features, 64, batch_bytes=500 * 32, progress=done.append)
    assert done == [2000, 2500, 3000, 3300]
    with milvus.open_milvus(tmp_path / "index", features, nprobe=64) as index:
        found = index.search(features.take([3000]), 3300)
    assert sorted(found.rows[0].tolist()) == [row for row in range(3300) if row != 700]
    milvus.build(tmp_path / "index", features, 64, batch_bytes=500 * 32, progress=done.append)
    assert len(done) == 4  # nothing left to do


def test_a_folder_of_other_features_is_refused(tmp_path: Path) -> None:
    features, other = store(tmp_path / "a", 300, []), store(tmp_path / "b", 300, [], dim=4)
    milvus.build(tmp_path / "index", features, nlist=8)
    with pytest.raises(DataError, match="dim 8, now 4"), milvus.open_milvus(tmp_path / "index", other, 1):
        pass
    with pytest.raises(DataError, match="vectors of 8 dimensions, the pool 4"):
        milvus.build(tmp_path / "index", other, nlist=8)
    with pytest.raises(DataError, match="holds 300 rows, the pool 299"):
        milvus.build(tmp_path / "index", store(tmp_path / "c", 300, [9]), nlist=8)


def test_a_collection_that_is_gone_is_named(tmp_path: Path) -> None:
    features = store(tmp_path / "a", 300, [])
    milvus.build(tmp_path / "index", features, nlist=8)
    with server.connected(tmp_path / "index", None) as client:
        client.drop_collection("sept")
    with pytest.raises(DataError, match="no collection 'sept'"), milvus.open_milvus(tmp_path / "index", features, 1):
        pass


@pytest.mark.parametrize("answers", [False, True])
def test_a_server_that_cannot_be_reached_is_named_quickly(
    tmp_path: Path, answers: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = store(tmp_path / "a", 300, [])
    monkeypatch.setattr(server, "CONNECT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections and says nothing
        port = listener.getsockname()[1]
        if not answers:
            listener.close()
        start = time.monotonic()
        with pytest.raises(StorageError) as caught:
            milvus.build(tmp_path / "index", features, 8, uri=f"http://me:secret@127.0.0.1:{port}")
    assert time.monotonic() - start < 5
    assert str(caught.value).startswith(f"Milvus at index.uri=http://127.0.0.1:{port} (null: Milvus Lite, in a file): ")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_an_embedded_file_in_use_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    features = store(tmp_path / "a", 300, [])
    milvus.build(tmp_path / "index", features, nlist=8)
    path = tmp_path / "index" / server.LITE
    capfd.readouterr()
    with open(path / "LOCK") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as another process would
        with pytest.raises(StorageError) as caught, milvus.open_milvus(tmp_path / "index", features, 1):
            pass
    assert str(caught.value).startswith(f"Milvus Lite at {path} (which one process at a time may open): ")
    assert capfd.readouterr().err == ""


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ConfigError, match=r"pip install 'sept\[milvus\]'"):
        milvus.build(tmp_path / "index", store(tmp_path / "a", 300, []), 8)
