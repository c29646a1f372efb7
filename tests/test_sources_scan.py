"""A scan on the disk gives what one in one go gives, goes on after a kill, and holds nothing in memory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sept.data.sources import folder as folder_module
from sept.data.sources.files import Absent, Entry
from sept.data.sources.folder import list_folder
from sept.data.sources.scan import scan, scan_in_parallel, scan_shards
from sept.errors import DataError, StorageError


def images(name: str, count: int = 3) -> list[Entry]:
    return [Entry("s", f"{name}/{n} é.jpg", f"{name}.tar", 512 * n, n) for n in range(count)]


def collect(shards, index_one, folder, threads=1):
    told: list[int] = []
    return list(scan_shards(shards, index_one, threads, folder, told.append)), told


@pytest.mark.parametrize("threads", [1, 4])
def test_findings_come_in_the_order_of_the_shards(threads, tmp_path):
    def slow_first(shard):
        time.sleep(0.05 if shard == "a" else 0)
        return [*images(shard, len(shard)), Absent(f"{shard} is gone")]

    found, told = collect(["a", "ccc", "bb"], slow_first, tmp_path / "scan", threads)
    assert found == [
        each for name in ("a", "ccc", "bb") for each in [*images(name, len(name)), Absent(f"{name} is gone")]
    ]
    assert told == [1, 3, 2]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_scan_goes_on_where_it_failed_and_indexes_no_shard_twice(threads, tmp_path):
    indexed: list[str] = []

    def once(shard):
        yield from images(shard, 2)
        if shard == "c" and "c" not in indexed:
            indexed.append(shard)
            raise DataError("c is damaged")
        indexed.append(shard)

    shards = ["a", "b", "c", "d"]
    stream = scan_shards(shards, once, threads, tmp_path, lambda n: None)
    with pytest.raises(DataError, match="c is damaged"):
        list(stream)
    found, told = collect(shards, once, tmp_path, threads)
    assert found == [each for name in shards for each in images(name, 2)]
    assert told == [2, 2, 2, 2]
    assert [indexed.count(name) for name in "abc"] == [1, 1, 2]  # d may have been under way at the failure


def test_files_of_other_shards_or_cut_ones_are_made_again(tmp_path):
    collect(["a", "b"], images, tmp_path)
    assert collect(["a", "z"], images, tmp_path)[0] == images("a") + images("z")
    path = tmp_path / "000000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert collect(["a", "z"], images, tmp_path)[0] == images("a") + images("z")
    assert sorted(os.listdir(tmp_path)) == ["000000.parquet", "000001.parquet"]


def test_a_consumer_that_stops_leaves_no_half_file(tmp_path):
    def endless(shard):
        n = 0
        while True:
            yield Entry("s", str(n), shard, n, 1)
            n += 1

    stream = scan_shards(["a", "b"], lambda shard: images("a") if shard == "a" else endless(shard), 2, tmp_path, print)
    assert next(stream) == images("a")[0]
    stream.close()  # ends the endless one
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == ["000000.parquet"]


def test_a_disk_that_refuses_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        collect(["a"], images, tmp_path / "file" / "scan")


def write(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize("weight", [1, 2, 5, 10_000])
@pytest.mark.parametrize("below", ["", "only/", "only/one/"])
def test_a_folder_scanned_in_parts_is_the_folder(weight, below, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "PART_WEIGHT", weight)
    monkeypatch.setattr(folder_module, "FOLDER_WEIGHT", 2)
    names = [
        "a/x.jpg",
        "a-b.jpg",
        "a!/y.PNG",
        "a/b/z.jpg",
        "a.jpg",
        "é/1.jpg",
        "z 1.jpg",
        "Z/1.jpg",
        "c.txt",
        ".h/1.jpg",
    ]
    for name in names:
        write(tmp_path / "data" / below / name, name.encode())
    listed = list_folder(tmp_path / "data", "s")
    assert [entry.key for entry in listed] == sorted((below + n for n in names[:8]), key=str.encode)
    assert list(scan("folder", str(tmp_path / "data"), "s")) == listed
    (tmp_path / "work").mkdir()
    told: list[int] = []
    found = scan_in_parallel("folder", str(tmp_path / "data"), "s", 3, tmp_path / "work", told.append)
    assert list(found) == listed
    assert sum(told) == 8
    assert not os.listdir(tmp_path / "work")


def test_a_pipe_behind_a_link_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").symlink_to(tmp_path / "pipe")
    with pytest.raises(DataError, match="no file; remove it"):
        list_folder(tmp_path / "data", "s")


def test_a_key_that_two_parts_name_is_found_on_the_disk_too(tmp_path, monkeypatch):
    from sept.data.sources import lists

    monkeypatch.setattr(lists, "PART_BYTES", 7)
    write(tmp_path / "data" / "a.jpg")
    write(tmp_path / "data" / "b.jpg")
    path = tmp_path / "data" / "list.txt"
    path.write_text("a.jpg\nb.jpg\na.jpg\n")
    told: list[int] = []
    with pytest.raises(DataError, match=r"list\.txt: names 'a\.jpg' twice"):
        list(scan_in_parallel("list", str(path), "s", 2, tmp_path / "work", told.append))
    assert sum(told) == 3


KILLED = """
import os, signal, sys
from pathlib import Path
from sept.data.sources.scan import scan_in_parallel
for n, entry in enumerate(scan_in_parallel("folder", sys.argv[1], "s", 2, Path(sys.argv[2]))):
    if n == 250:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_scan_goes_on(tmp_path, monkeypatch):
    for n in range(300):
        write(tmp_path / "data" / f"{n // 100}" / f"{n:03d}.jpg")
    (tmp_path / "work").mkdir()
    command = [
        sys.executable,
        "-c",
        KILLED.replace("for n", "from sept.data.sources import folder as f\nf.PART_WEIGHT = 1\nfor n", 1),
        str(tmp_path / "data"),
        str(tmp_path / "work"),
    ]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "scan").glob("*.parquet")}
    assert len(kept) >= 2
    monkeypatch.setattr(folder_module, "PART_WEIGHT", 1)
    stream = scan_in_parallel("folder", str(tmp_path / "data"), "s", 2, tmp_path / "work")
    first = next(stream)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert [first, *stream] == list_folder(tmp_path / "data", "s")
