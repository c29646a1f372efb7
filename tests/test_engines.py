"""Every shard is done, once in effect, whatever dies."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharded import (
    SHARDS,
    TWO,
    dying,
    embedder,
    failed_starts,
    failing,
    files,
    leaving,
    logged,
    missing,
    once_started,
    refusing,
)

from sept import engines
from sept.engines.dispatch import TRIES, Report, dispatch
from sept.errors import ConfigError, DataError, Interrupted, NonFiniteError
from sept.runtime.hardware import Runtime
from sept.runtime.signals import Flag

ONE = Runtime(threads=2)
PROGRAM = "import sys, sharded; sharded.program(sys.argv[1])"


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    """The files of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    engines.run("local", partial(embedder, folder), range(SHARDS), ONE, folder)
    return files(folder)


def children(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        found = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return [child for child in found if b"spawn_main" in command_of(child)]
    return []


def command_of(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_one_device_is_this_process_alone(tmp_path, expected):
    finished: list[int] = []
    engines.run("local", partial(embedder, tmp_path), range(5), ONE, tmp_path, finished.append)
    assert finished == list(range(5))
    assert files(tmp_path) == dict(sorted(expected.items())[:5])
    assert logged(tmp_path)["cpu"] == 1


def test_several_devices_do_the_same_as_one(tmp_path, expected):
    engines.run("local", partial(embedder, tmp_path), range(SHARDS), TWO, tmp_path, partial(once_started, tmp_path, 2))
    assert files(tmp_path) == expected
    assert logged(tmp_path) == Counter({"cpu": 2, **{str(shard): 1 for shard in range(SHARDS)}})
    assert children(os.getpid()) == []


def test_nothing_missing_starts_nothing(tmp_path):
    engines.run("local", partial(embedder, tmp_path), [], TWO, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_workers_share_the_cores():
    assert engines.share(Runtime(accelerator="cuda", devices=2, threads=9), "cuda:1") == Runtime("cuda:1", threads=4)
    assert engines.share(TWO, "cpu").threads == 1


@pytest.mark.parametrize("runtime", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("make", [failing, refusing])
def test_what_a_shard_or_a_start_raises_ends_all_and_is_raised(make, runtime, tmp_path):
    with pytest.raises(NonFiniteError, match="row 7 is not finite"):
        engines.run("local", partial(make, NonFiniteError("row 7 is not finite")), range(9), runtime, tmp_path)
    assert children(os.getpid()) == []


def test_a_bug_is_told_with_its_traceback(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)in work.*ZeroDivisionError: never"):
        engines.run("local", partial(failing, ZeroDivisionError("never")), range(9), TWO, tmp_path)


def test_a_worker_that_dies_costs_its_shard_only(tmp_path, expected):
    make = partial(dying, tmp_path, {0: TRIES - 1, 1: 1, SHARDS - 1: 1})
    engines.run("local", make, range(SHARDS), TWO, tmp_path)
    assert files(tmp_path) == expected
    begun = logged(tmp_path)
    assert 2 <= begun.pop("cpu") <= 2 + (TRIES - 1) + 1 + 1  # a worker more for each death
    assert set(begun.values()) == {1}


def test_a_worker_that_leaves_a_process_behind_is_still_seen_to_die(tmp_path):
    start = time.monotonic()
    engines.run("local", partial(leaving, tmp_path), range(9), TWO, tmp_path)
    assert len(files(tmp_path)) == 9
    assert time.monotonic() - start < 12


def test_a_shard_that_kills_every_worker_is_named_when_all_others_are_done(tmp_path, expected):
    with pytest.raises(DataError, match=f"shard 4: {TRIES} workers died while doing it, the last by SIGKILL"):
        engines.run("local", partial(dying, tmp_path, {4: TRIES}), range(SHARDS), TWO, tmp_path)
    assert len(files(tmp_path)) >= SHARDS // 2
    assert missing(tmp_path)[0] == 4
    engines.run("local", partial(embedder, tmp_path), missing(tmp_path), TWO, tmp_path)
    assert files(tmp_path) == expected


def test_workers_that_cannot_start_are_not_started_for_ever(tmp_path):
    with pytest.raises(ConfigError, match=f"{TRIES * 2} workers in a row died while starting, the last by exit code 3"):
        engines.run("local", failed_starts, range(9), TWO, tmp_path)


@pytest.mark.parametrize("runtime", [ONE, TWO], ids=["one", "two"])
def test_a_signal_ends_all_and_the_same_call_goes_on(runtime, tmp_path, expected):
    def signal_once(shard: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        engines.run("local", partial(embedder, tmp_path), range(SHARDS), runtime, tmp_path, signal_once)
    assert signal.getsignal(signal.SIGTERM) is before
    assert children(os.getpid()) == []
    assert len(missing(tmp_path)) >= SHARDS - 3
    engines.run("local", partial(embedder, tmp_path), missing(tmp_path), runtime, tmp_path)
    assert files(tmp_path) == expected


def test_what_the_callback_raises_ends_all(tmp_path):
    def enough(shard: int) -> None:
        raise DataError("too many unreadable images")

    with pytest.raises(DataError, match="too many"):
        engines.run("local", partial(embedder, tmp_path), range(SHARDS), TWO, tmp_path, enough)
    assert children(os.getpid()) == []


def start(folder: Path) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], env={**os.environ, "PYTHONPATH": path})


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def end_all(running: subprocess.Popen[bytes]) -> None:
    """Kills a program, and sees its workers follow."""
    workers = children(running.pid)
    running.kill()
    running.wait()
    deadline = time.monotonic() + 10
    while any(b"spawn_main" in command_of(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlives its program"
        time.sleep(0.01)


def wait_for_progress(folder: Path, running: subprocess.Popen[bytes]) -> None:
    size = (folder / ".log").stat().st_size if (folder / ".log").exists() else 0
    while running.poll() is None and not ((folder / ".log").exists() and (folder / ".log").stat().st_size > size):
        time.sleep(0.002)


def kill_at_random(folder: Path, draw: random.Random, most: int) -> int:
    """Runs the program to its end, killing it or a worker now and then, `most` times at most. How many times it was."""
    kills = 0
    running = start(folder)
    while (code := running.poll()) != 0:
        if code is not None:
            assert code in (-signal.SIGKILL, DataError.exit_code)  # one shard may be hit three times
            running = start(folder)
        if draw.random() < 0.7:  # else workers that start, which takes longest, would be nearly all that is met
            wait_for_progress(folder, running)
        time.sleep(draw.uniform(0, 0.2))
        workers = children(running.pid)
        if kills < most and workers:
            kills += 1
            if draw.random() < 0.2:
                end_all(running)
            else:
                kill(draw.choice(workers))
    return kills


def check_kills(folder: Path, expected: dict[str, bytes], kills: int) -> None:
    """Embeds anew until so many kills have met it, and compares every embedding."""
    draw, left, embedding = random.Random(0), kills, 0
    while left:
        embedding += 1
        here = folder / str(embedding)
        here.mkdir()
        met = kill_at_random(here, draw, left)
        left -= met
        assert files(here) == expected
        redone = logged(here).total() - logged(here)["cpu"] - SHARDS
        assert redone <= 2 * met  # a worker's death costs its shard, a program's those of its two workers
        print(f"{met} kills: {redone} of {SHARDS} shards begun again")


def test_random_kills_lose_double_and_misplace_no_row(tmp_path, expected):
    check_kills(tmp_path, expected, kills=10)


@pytest.mark.slow
def test_a_hundred_random_kills_lose_double_and_misplace_no_row(tmp_path, expected):
    check_kills(tmp_path, expected, kills=100)


@dataclass
class DrawnCrew:
    """Workers whose fate is drawn: at each report one of them goes on or dies."""

    size: int
    draw: random.Random
    deadliness: float
    alive: dict[int, int | None] = field(default_factory=dict)  # shard by place; None: starting or idle
    reporting: set[int] = field(default_factory=set)
    done: list[int] = field(default_factory=list)

    def spawn(self, place: int) -> None:
        assert place not in self.alive
        assert 0 <= place < self.size
        self.alive[place] = None
        self.reporting.add(place)

    def give(self, place: int, shard: int) -> None:
        assert place in self.alive
        assert place not in self.reporting, "a worker was given a shard while it is busy"
        assert shard not in self.alive.values(), "two workers have one shard"
        self.alive[place] = shard
        self.reporting.add(place)

    def report(self, timeout_s: float) -> Report | None:
        dies = self.draw.random() < self.deadliness
        place = self.draw.choice(sorted(self.alive if dies else self.reporting))
        self.reporting.discard(place)
        shard, self.alive[place] = self.alive[place], None
        if dies:
            del self.alive[place]
            return Report(place, death="SIGKILL")
        if shard is not None:
            self.done.append(shard)
        return Report(place)


@given(st.integers(1, 6), st.lists(st.integers(0, 30), unique=True, min_size=1), st.floats(0, 0.9), st.integers(0, 999))
def test_whoever_dies_every_shard_is_told_done_once_or_the_end_is_an_error(size, shards, deadliness, seed):
    crew, told = DrawnCrew(size, random.Random(seed), deadliness), []
    try:
        dispatch(crew, shards, told.append, Flag())
    except (DataError, ConfigError):
        assert deadliness > 0
        assert set(told) < set(shards)
    else:
        assert sorted(told) == sorted(shards)
    assert told == crew.done
