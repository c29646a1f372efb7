"""Assigns shards to workers one at a time, and reassigns them when a worker died; the pool runs the workers.

Only this module knows the assignment: a worker takes nothing by itself, so that one killed at any moment holds no lock
and no other worker's shard. On this machine workers are this process on one device, a process per device on several.
"""

import os
import pickle
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

from sept.errors import ConfigError, DataError, Interrupted, SeptError
from sept.runtime.failures import out_of_memory, refusal
from sept.runtime.hardware import Runtime
from sept.runtime.lifeline import die_with_parent, spawn
from sept.runtime.signals import Flag, raising, remembered

Work = Callable[[int], None]
Make = Callable[[str], Work]
Done = Callable[[int], None]
Failure = SeptError | str | None  # str: the traceback of a bug

TRIES = 3  # workers that may die on one shard; and, per slot, consecutively before their first shard
POLL_S = 0.5
GRACE_S = 5.0  # for a process to end after closing its pipe


def share(runtime: Runtime, device: str) -> Runtime:
    """The runtime of one worker: its device and its share of the cores."""
    return replace(runtime, accelerator=device, devices=1, threads=max(1, runtime.threads // runtime.devices))


def failure_of(action: Callable[[], Any]) -> Failure:
    """The exception of `action`, in a form that any process can unpickle."""
    try:
        action()
    except SeptError as error:
        return error
    except Exception as error:
        return out_of_memory(error) or refusal(error) or traceback.format_exc()
    return None


@dataclass(frozen=True)
class Report:
    """From the worker in a slot: it has started or finished its shard, or failed, or died (`death`: how)."""

    place: int
    failure: Failure = None
    death: str | None = None


class WorkerPool(Protocol):
    """Slots for workers, numbered from 0 to size - 1."""

    size: int

    def spawn(self, place: int) -> None:
        """Starts a worker in a free slot. It reports as soon as it can take a shard."""

    def give(self, place: int, shard: int) -> None:
        """Gives the worker a shard, on which it reports. A worker that is already dead is reported too."""

    def report(self, timeout_s: float) -> Report | None:
        """The next report, or None after a timeout."""


def dispatch(pool: WorkerPool, shards: Sequence[int], done: Done, flag: Flag) -> None:
    """Runs all shards on the pool. Raises as `sept.engines.run` does; the caller then closes the pool."""
    schedule = _Schedule(pool, shards, done)
    for place in range(min(pool.size, len(shards))):
        pool.spawn(place)
    while schedule.waiting or schedule.given:
        report = pool.report(POLL_S)
        if flag.received:
            raise Interrupted(f"stopped by {flag.received}; the same command resumes from the finished shards")
        if report is not None:
            schedule.on_report(report)


class _Schedule:
    """Which shards are waiting, and which workers have the others."""

    def __init__(self, pool: WorkerPool, shards: Sequence[int], done: Done) -> None:
        self.pool, self.done = pool, done
        self.waiting = deque(shards)
        self.given: dict[int, int] = {}  # shard by slot
        self.idle: set[int] = set()
        self.deaths: Counter[int] = Counter()  # by shard
        self.failed_starts = 0  # consecutive workers that died while starting

    def on_report(self, report: Report) -> None:
        place, shard = report.place, self.given.pop(report.place, None)
        if isinstance(report.failure, SeptError):
            raise report.failure
        if report.failure is not None:
            raise RuntimeError(f"a worker failed:\n{report.failure}")
        if report.death is not None:
            self._on_worker_death(place, shard, report.death)
        else:
            self.failed_starts = 0
            self.idle.add(place)
            if shard is not None:
                self.done(shard)
        self._give()

    def _give(self) -> None:
        while self.idle and self.waiting:
            place = self.idle.pop()
            self.given[place] = self.waiting.popleft()
            self.pool.give(place, self.given[place])

    def _on_worker_death(self, place: int, shard: int | None, how: str) -> None:
        if shard is not None:
            self._return(shard, how)
        elif place in self.idle:
            self.idle.remove(place)
        else:
            self._count_failed_start(how)
        if self.waiting and not self.idle:
            self.pool.spawn(place)

    def _return(self, shard: int, how: str) -> None:
        """Puts the shard at the end of the queue, so that one that kills its workers does not delay the others."""
        self.deaths[shard] += 1
        if self.deaths[shard] == TRIES:
            raise DataError(
                f"shard {shard}: {TRIES} workers died while doing it, the last by {how}. All other finished shards are "
                "kept; if it ran out of memory, use a smaller batch or fewer workers, then run the same command again"
            )
        self.waiting.append(shard)

    def _count_failed_start(self, how: str) -> None:
        self.failed_starts += 1
        if self.failed_starts == TRIES * self.pool.size:
            raise ConfigError(
                f"{self.failed_starts} workers in a row died while starting, the last by {how}: is there memory for "
                f"{self.pool.size} of them? Use fewer"
            )


class Worker:
    """Calls `make`, then processes shards; returns their exceptions."""

    work: Work

    def start(self, job: bytes, device: str) -> Failure:
        """job: the pickled `make`."""

        def begin() -> None:
            Runtime(device).select_device()  # before this process can open a context on another
            self.work = pickle.loads(job)(device)

        return failure_of(begin)

    def do(self, shard: int) -> Failure:
        return failure_of(lambda: self.work(shard))


def run(make: Make, shards: Sequence[int], runtime: Runtime, done: Done) -> None:
    """Raises as `sept.engines.run` does."""
    if runtime.devices > 1:
        with remembered() as flag, closing(Processes(make, runtime)) as crew:
            dispatch(crew, shards, done, flag)
        return
    with raising():
        work = make(runtime.accelerator)
        for shard in shards:
            work(shard)
            done(shard)


@dataclass(frozen=True)
class _Hired:
    process: SpawnProcess
    line: Connection


class Processes:
    """A worker pool of one process per device, each with its own pipe, so that no kill leaves a lock held."""

    def __init__(self, make: Make, runtime: Runtime) -> None:
        self.size, self.accelerator = runtime.devices, runtime.accelerator
        self.job = pickle.dumps(make)  # torch's own pickling would share tensors between the processes
        self.workers: dict[int, _Hired] = {}

    def spawn(self, place: int) -> None:
        new = spawn(self.job)
        line, theirs = new.Pipe()
        device = f"{self.accelerator}:{place}" if self.accelerator == "cuda" else self.accelerator
        process = new.Process(target=_serve, args=(theirs, self.job, device))
        process.start()
        theirs.close()  # then only the worker holds it, so that its death is noticed
        self.workers[place] = _Hired(process, line)

    def give(self, place: int, shard: int) -> None:
        with suppress(ConnectionError):
            self.workers[place].line.send(shard)

    def report(self, timeout_s: float) -> Report | None:
        places = {worker.line: place for place, worker in self.workers.items()}
        for line in wait(list(places), timeout_s):
            assert isinstance(line, Connection)
            try:
                return Report(places[line], failure=line.recv())
            except (EOFError, ConnectionError):
                return self._reap(places[line])
        # A process started by the worker may hold the pipe's other end open.
        dead = (place for place, worker in self.workers.items() if not worker.process.is_alive())
        return next(map(self._reap, dead), None)

    def _reap(self, place: int) -> Report:
        worker = self.workers.pop(place)
        code = _end(worker)
        return Report(place, death=signal.Signals(-code).name if code < 0 else f"exit code {code}")

    def close(self) -> None:
        """Kills all: an uncommitted shard leaves nothing that counts."""
        for place in list(self.workers):
            worker = self.workers.pop(place)
            worker.process.kill()
            _end(worker)


def _end(worker: _Hired) -> int:
    """The exit code of a process that is ending."""
    worker.process.join(GRACE_S)
    worker.process.kill()
    worker.process.join()
    code = worker.process.exitcode
    assert code is not None
    worker.process.close()
    worker.line.close()
    return code


def _serve(line: Connection, job: bytes, device: str) -> None:
    """The main function of a worker's process."""
    die_with_parent()
    os.setpgrp()  # Ctrl-C reaches the program, which ends its workers
    worker = Worker()
    with suppress(EOFError, ConnectionError):  # the program is gone
        line.send(worker.start(job, device))
        while True:
            line.send(worker.do(line.recv()))
