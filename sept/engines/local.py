"""Processes shards on this machine: in this process on one device, in a process per device on several."""

import os
import pickle
import signal
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from sept.engines.dispatch import Done, Make, Report, Worker, dispatch
from sept.runtime.hardware import Runtime
from sept.runtime.lifeline import die_with_parent, spawn
from sept.runtime.signals import raising, remembered


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


GRACE_S = 5.0  # for a process to end after closing its pipe


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
