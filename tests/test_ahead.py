"""A search given out ahead of the host finds the same lists, in whatever order a GPU may do its work."""

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretended_lanes import CALLERS, Unordered, pretended
from test_index import ARITHMETICS, assert_same, brute_force, copies, store, unit

from sept.errors import DataError
from sept.retrieval import ahead, candidates, compact, index, lanes
from sept.retrieval import scan as scan_module
from sept.retrieval.ahead import Counted
from sept.retrieval.candidates import Candidates, exact_queries
from sept.retrieval.compact import Compact
from sept.retrieval.features import Features
from sept.retrieval.index import search, search_many
from sept.retrieval.lanes import Lane, Mark
from sept.retrieval.scan import BLOCK_ROWS, DEVICE_ROWS, Arithmetic, Blocks, Hits, Products, rows_of_block


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_lists_do_not_depend_on_blocks_readers_space_or_how_late_the_cut_is(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, dim, late = data.draw(st.integers(1, 300)), data.draw(st.integers(2, 24)), data.draw(st.integers(0, 3))
    vectors = copies(data.draw, rng, rows, dim)
    queries = np.concatenate([unit(rng, 3, dim), vectors[rng.integers(0, rows, 3)]])
    skipped = sorted(rng.choice(rows, data.draw(st.integers(0, rows - 1)) // 4, replace=False).tolist())
    depth = data.draw(st.integers(1, rows))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "on_host", lambda device: False)
        patch.setattr(candidates, "SPARE_LEAST", data.draw(st.integers(1, 64)))
        patch.setattr(index, "QUERIES_ON_GPU", data.draw(st.integers(1, 7)))
        patch.setattr(index, "SAMPLE_ROWS", data.draw(st.integers(1, 40)))
        patch.setattr(index, "SAMPLED_POOL", data.draw(st.integers(1, 4)))
        patch.setattr(index, "GUESS_SIGMAS", data.draw(st.sampled_from([-1.0, 3.0])))
        patch.setattr(ahead, "BINS", data.draw(st.sampled_from([4, 64, 4096])))
        patch.setattr(ahead, "SPACE", data.draw(st.sampled_from([1, 50, 2**12])))  # most products overflow the first
        patch.setattr(scan_module, "READERS", data.draw(st.integers(1, 5)))
        patch.setattr(Counted, "_move", moved_late(Counted._move, late))
        numbers = data.draw(st.sampled_from(ARITHMETICS))
        patch.setattr(index, "arithmetic", lambda device: numbers)
        features = store(Path(folder), vectors, skipped, data.draw(st.integers(50, 500)))
        copy = None
        if data.draw(st.booleans()):
            compact.build(Path(folder) / "int8", features)
            copy = Compact.open(Path(folder) / "int8", features)
        block_rows = data.draw(st.one_of(st.none(), st.integers(1, 500)))
        found = search(queries, features, depth, block_rows=block_rows, compact=copy)
        assert_same(found, brute_force(queries, vectors, skipped, depth))


def moved_late(move: Callable[[Counted], None], late: int) -> Callable[[Counted], None]:
    """The cut is what it was so many moves ago."""
    cuts: dict[int, list[torch.Tensor]] = {}

    def moving(counted: Counted) -> None:
        move(counted)
        seen = cuts.setdefault(id(counted), [])
        seen.append(counted.cut)
        counted.cut = seen[max(0, len(seen) - 1 - late)]

    return moving


@given(data=st.data())
@settings(deadline=None, max_examples=20)
def test_a_gpu_counts_as_the_host_does(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    depth, sizes = data.draw(st.integers(1, 50)), data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        features, queries = store(Path(folder), unit(rng, 9, 4), []), exact_queries(unit(rng, 3, 4))
        here, there = (Candidates(features, queries, depth, Arithmetic(torch.bfloat16), 0.0) for _ in range(2))
    counted = Counted(there, "cpu")
    for size in sizes:
        scores = rng.uniform(-1, 1, (3, size)).astype(np.float32)
        here.bins.add(Hits.at(np.arange(3 * size), scores.ravel(), scores.shape))
        which = torch.arange(3).repeat_interleave(size)
        once_more = torch.zeros(len(which), dtype=torch.bool)
        counted.add(which.repeat(2), torch.from_numpy(scores.ravel()).repeat(2), torch.cat([~once_more, once_more]))
    np.testing.assert_allclose(counted.edges(), here.bins.edges(), rtol=1e-12)
    np.testing.assert_array_equal(counted.cut.float().numpy(), here.cut.numpy())


def scan(folder: Path, int8: bool = False) -> Callable[[], None]:
    """A search of some blocks for two tiles that its lanes allow to be checked."""
    rng = np.random.default_rng(3)
    features, queries = store(folder, unit(rng, 300, 16), [5, 100], rows_per_shard=100), unit(rng, 5, 16)
    copy = None
    if int8:
        compact.build(folder / "int8", features)
        copy = Compact.open(folder / "int8", features)
    wanted = search(queries, features, 5)

    def searching(**options: Any) -> None:
        assert_same(search(queries, features, 5, block_rows=20, compact=copy, **options), wanted)

    return searching


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("space", [20, 2**12])
def test_every_access_to_a_buffer_waits_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8: bool, space: int
) -> None:
    searching = scan(tmp_path, int8)
    monkeypatch.setattr(ahead, "SPACE", space)
    monkeypatch.setattr(index, "QUERIES_ON_GPU", 3)
    with pretended(monkeypatch) as clocks:
        searching()
    assert len(clocks.known) >= 4  # the host, its readers, the caller's lane and two more


def no_wait_of(main: bool) -> Callable[[pytest.MonkeyPatch], None]:
    def breaking(patch: pytest.MonkeyPatch) -> None:
        wait = Mark.wait

        def waits(mark: Mark) -> None:
            if (threading.current_thread() is threading.main_thread()) != main:
                wait(mark)

        patch.setattr(Mark, "wait", waits)

    return breaking


def no_order_of(callers: bool) -> Callable[[pytest.MonkeyPatch], None]:
    def breaking(patch: pytest.MonkeyPatch) -> None:
        after = Lane.after

        def comes_after(lane: Lane, mark: Mark) -> None:
            if (lane.stream.lane == CALLERS) != callers:
                after(lane, mark)

        patch.setattr(Lane, "after", comes_after)

    return breaking


@pytest.mark.parametrize(
    ("breaking", "told"),
    [
        (no_wait_of(main=False), "reading a file by the host after lane"),
        (no_wait_of(main=True), "by the host after"),
        (no_order_of(callers=True), "aten::copy_ by the caller's lane after lane"),
    ],
    ids=["staging is read into while it is copied", "hits are taken in before they came", "converted before it came"],
)
def test_a_wait_that_is_left_out_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaking: Callable[[pytest.MonkeyPatch], None], told: str
) -> None:
    searching = scan(tmp_path)
    breaking(monkeypatch)
    with pytest.raises(Unordered, match=told), pretended(monkeypatch):
        searching()


@pytest.mark.parametrize("broken", [False, True])
def test_arrivals_are_not_copied_over_before_they_are_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """Of blocks alone: in a search the host has waited for an earlier product by then."""
    features = store(tmp_path, unit(np.random.default_rng(0), 200, 8), [], 100)
    if broken:
        no_order_of(callers=False)(monkeypatch)
    with pretended(monkeypatch):
        if not broken:
            assert sum(len(block) for _, block in Blocks(features, "cpu", Arithmetic(), 20)) == 200
            return
        with pytest.raises(Unordered, match=r"aten::copy_ by lane . after the caller's lane"):
            list(Blocks(features, "cpu", Arithmetic(), 20))


def test_the_host_does_not_wait_for_the_product_given_out_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searching, last, ahead_of_host = scan(tmp_path), [0], []
    with pretended(monkeypatch) as clocks:
        multiply = Products.__call__

        def multiplied(*args: Any) -> torch.Tensor:
            scores = multiply(*args)
            last[0] = clocks.time[CALLERS]
            return scores

        monkeypatch.setattr(Products, "__call__", multiplied)
        searching(progress=lambda _: ahead_of_host.append(clocks.knows(clocks.here())[CALLERS] < last[0]))
    assert ahead_of_host == [True] * 15  # blocks of 20 of three shards of 100


@pytest.mark.parametrize("readers", [1, 3])
def test_blocks_come_in_order_from_any_number_of_readers(tmp_path: Path, readers: int) -> None:
    vectors = unit(np.random.default_rng(0), 500, 8)
    features = store(tmp_path, vectors, [], 130)
    made = Blocks(features, "cpu", Arithmetic(), 50, readers)
    assert len(made.staged) == readers + 1
    for expected, (first, block) in zip(features.places(50), made, strict=True):
        assert (first, len(block)) == expected
        np.testing.assert_array_equal(block.numpy(), features.take(np.arange(first, first + len(block))))


def test_a_scan_that_is_given_up_reads_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, read = store(tmp_path, unit(np.random.default_rng(0), 500, 8), [], 500), []
    reading = Features.read
    monkeypatch.setattr(Features, "read", lambda *args: (read.append(args[1]), reading(*args)))
    blocks_there = iter(Blocks(features, "cpu", Arithmetic(), 10, 2))
    next(blocks_there)
    blocks_there.close()
    assert len(read) <= 4


def test_a_damaged_shard_ends_the_scan_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searching = scan(tmp_path)
    path = tmp_path / "shard-000001.npy"
    path.write_bytes(path.read_bytes()[:-10])
    monkeypatch.setattr(lanes, "on_host", lambda device: False)
    with pytest.raises(DataError, match=r"shard-000001.npy"):
        searching()


def test_blocks_are_as_large_as_the_device_and_the_shards_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = store(tmp_path, unit(np.random.default_rng(0), 90, 8), [], 90)
    half = Arithmetic(torch.bfloat16)
    assert rows_of_block(features, "cpu", half, 1024) == BLOCK_ROWS
    assert rows_of_block(features, "cuda", half, 1024) == 90  # one shard
    monkeypatch.setattr(lanes, "on_host", lambda device: False)
    monkeypatch.setattr(lanes, "has_lanes", lambda device: True)
    many = [type("Shard", (), {"rows": 10**6})]
    large = type("Large", (), {"dim": 768, "shards": many})
    free = {80e9: DEVICE_ROWS, 2e9: None, 1e6: BLOCK_ROWS}
    found = []
    for memory in free:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, memory=memory: (int(memory), int(80e9)))
        found.append([rows_of_block(large, "cuda", half, queries) for queries in (64, 1024)])
    assert found[0] == [DEVICE_ROWS] * 2
    assert BLOCK_ROWS < found[1][1] < found[1][0] < DEVICE_ROWS  # more scores, fewer rows
    assert found[2] == [BLOCK_ROWS] * 2


def test_tasks_share_a_scan_given_out_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    features = store(tmp_path, unit(rng, 600, 16), [5], 250)
    tasks = [(unit(rng, count, 16), depth) for count, depth in [(9, 30), (1, 1000), (40, 3)]]
    alone = [search(queries, features, depth) for queries, depth in tasks]
    monkeypatch.setattr(lanes, "on_host", lambda device: False)
    monkeypatch.setattr(index, "QUERIES_ON_GPU", 8)
    for found, wanted in zip(search_many(tasks, features), alone, strict=True):
        assert_same(found, wanted)
