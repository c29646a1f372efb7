"""What can befall the processes that read batches, and what is made of it: one line, and an end within a minute.

A worker that is killed (often by the kernel, when memory ran out) or stopped leaves others waiting for a lock that it
holds, or this process for its answer; torch sees some of that and waits for ever on the rest.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

from sept.errors import SeptError, WorkerLost
from sept.runtime.lifeline import STATE, Program, die_with_parent, stat_field

LOOK_S = 1.0
STOPPED_LOOKS = 20  # in a row: a program that is stopped and goes on with its workers does not look meanwhile
GONE_LOOKS = 15  # until the others are ended: torch asks every 5 s, and the end of a worker ends most waits
LAST_LOOKS = 30  # until this process ends itself, where even that has not woken it
GONE_S = 2.0  # for a worker that has gone to be seen as that
STOPPED = ("T", "t")
SHARED = "/dev/shm"
NO_ROOM = ("No space left on device", "unable to write to file </torch", "unable to resize file </torch", "shm_open")
SHARED_MEMORY = (
    f"{SHARED}, through which data workers hand over batches, is full: free it, start the container with a larger "
    "`--shm-size` or `--ipc=host`, or lower hardware.workers (0 needs none)"
)
GOES_ON = "the same command goes on from what was saved last"


@dataclass(frozen=True)
class Beginning:
    """What a data worker does first. group: to leave the group that Ctrl-C and many schedulers signal as a whole; a
    training needs its workers to finish a step and save."""

    program: Program

    def __call__(self, worker: int) -> None:
        os.setpgrp()
        signal.signal(signal.SIGBUS, signal.SIG_DFL)  # torch's handler tells its cause in other words
        die_with_parent()
        self.program.tie()


class Crewed(DataLoader):
    """A DataLoader whose workers are watched. Raises WorkerLost for one that was killed or stopped."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names its own private iterator
        if not self.num_workers:
            return super().__iter__()
        try:
            batches: Any = super().__iter__()  # torch does not type what it gives
        except OSError as error:  # of locks, which lie there too
            raise WorkerLost(f"data workers could not start: {error.strerror or error}; {SHARED_MEMORY}") from error
        return _read(batches, Crew(batches._workers))


def _read(batches: Iterator[Any], crew: "Crew") -> Iterator[Any]:
    threading.Thread(target=crew.watch, name="crew", daemon=True).start()
    try:
        while True:
            crew.waited_for = True
            try:
                batch = next(batches)
            except StopIteration:
                return
            crew.waited_for = False
            yield batch
    except SeptError:
        raise
    except Exception as error:  # of a lost connection, a pickle cut short, or torch's own finding
        lost = crew.reason() or _no_room(error)
        if lost is None:
            raise
        raise WorkerLost(lost) from error
    finally:
        crew.done.set()


def _no_room(error: Exception) -> str | None:
    """What a worker says that finds the shared memory full, rather than dying of it."""
    text = str(error)
    return SHARED_MEMORY if "torch_" in text and any(sign in text for sign in NO_ROOM) else None


@dataclass
class Crew:
    """The workers of one pass over a loader. waited_for: for a batch, by a process that does nothing else."""

    workers: Sequence[BaseProcess]
    waited_for: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    first_gone: list[BaseProcess] = field(default_factory=list)  # before others were ended for it
    stopped: int | None = None  # the one that was, and was ended for that

    def watch(self) -> None:
        """Until `done`: ends a worker that stays stopped; all where one is gone; and this process if that is no use."""
        stopped, gone = 0, 0
        while not self.done.wait(LOOK_S):
            states = [(worker, _state(worker)) for worker in self.workers]
            still = [worker.pid for worker, state in states if state in STOPPED]
            missing = [worker for worker, state in states if state is None]
            self.first_gone = self.first_gone or missing
            stopped = stopped + 1 if still and self.waited_for else 0
            gone = gone + 1 if missing and self.waited_for else 0
            if stopped == STOPPED_LOOKS:
                self.stopped = still[0]
            if stopped == STOPPED_LOOKS or gone == GONE_LOOKS:
                self._end_all()
            if gone == LAST_LOOKS:
                print(f"error: {self.reason() or 'the data workers are gone'}", file=sys.stderr, flush=True)
                os._exit(WorkerLost.exit_code)

    def _end_all(self) -> None:
        for worker in self.workers:
            if worker.pid is not None and _state(worker) is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

    def reason(self) -> str | None:
        """Why a worker is gone, if one is."""
        if self.stopped is not None:
            seconds = f"{STOPPED_LOOKS * LOOK_S:.0f} s"
            return f"data worker {self.stopped} was stopped for {seconds} (SIGSTOP) and did not go on; {GOES_ON}"
        last = time.monotonic() + GONE_S
        while True:
            for worker in self.first_gone or self.workers:
                if not worker.is_alive() and worker.exitcode:
                    return _told(worker.exitcode)
            if time.monotonic() > last:
                return None
            time.sleep(GONE_S / 20)


def _state(worker: BaseProcess) -> str | None:
    """As /proc tells it; None for one that has ended, "?" where there is no /proc."""
    if sys.platform != "linux" or worker.pid is None:
        return "?"
    state = stat_field(worker.pid, STATE)
    return None if state in ("Z", "X") else state


def _told(code: int) -> str:
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended by itself (exit code {code})"
    if -code == signal.SIGBUS:
        return f"a data worker {how}: {SHARED_MEMORY}"
    return f"a data worker {how}: often memory that ran out; lower hardware.workers; {GOES_ON}"
