"""Batches by step: what step t reads depends on (seed, t) alone, whatever the workers, ranks or interruptions.

What can befall the processes that read them becomes one line, and an end within a minute: a worker that is killed
(often by the kernel, when memory ran out) or stopped leaves others waiting for a lock that it holds, or this process
for its answer; torch sees some of that and waits for ever on the rest.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from sept.data.rng import permutation
from sept.errors import ConfigError, SeptError, WorkerLost
from sept.runtime.lifeline import STATE, Program, die_with_parent, forkserver, stat_field

LOOK_S = 1.0
STOPPED_LOOKS = 20  # in a row: a program that is stopped and resumed with its workers does not look meanwhile
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
RESUME = "run the same command again: it resumes from the last checkpoint"


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
            return f"data worker {self.stopped} was stopped for {seconds} (SIGSTOP) and did not continue; {RESUME}"
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
    return f"a data worker {how}: often memory that ran out; lower hardware.workers; {RESUME}"


Place = tuple[int, int]  # (epoch, sample)


class StepSampler(Sampler[list[Place]]):
    """The batches of steps `first` to `last` - 1, each the (epoch, sample) pairs of this rank's share.

    Every epoch visits a permutation of the samples drawn from (seed, epoch) and drops the incomplete last batch;
    with fewer samples than a batch holds, the batch is all of them. Raises ConfigError for a batch that does not split.
    """

    def __init__(
        self, *, seed: int, samples: int, batch_size: int, first: int, last: int, rank: int = 0, world: int = 1
    ) -> None:
        self.batch = min(batch_size, samples)
        if self.batch % world:
            raise ConfigError(f"a batch of {self.batch} images does not split over hardware.devices={world}")
        self.seed, self.samples, self.first, self.last = seed, samples, first, last
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[Place]]:
        per_epoch, share = self.samples // self.batch, self.batch // self.world
        drawn, order = -1, permutation(self.seed, 0, self.samples)
        for step in range(self.first, self.last):
            epoch, position = divmod(step, per_epoch)
            if epoch != drawn:
                drawn, order = epoch, permutation(self.seed, epoch, self.samples)
            start = position * self.batch + self.rank * share
            yield [(epoch, int(sample)) for sample in order[start : start + share]]


@dataclass(frozen=True)
class Batches:
    """What a training reads: batches of `batch_size` of the dataset's samples, in the order that `seed` draws."""

    dataset: Dataset
    samples: int
    batch_size: int
    seed: int
    join: Callable[[list], dict[str, Any]] | None = None  # of a batch's samples; None: `collate`

    def between(
        self, first: int, last: int, workers: int, rank: int = 0, world: int = 1, pin: bool = False
    ) -> DataLoader:
        """The batches of steps `first` to `last` - 1, or of each the share of a rank."""
        sampler = StepSampler(
            seed=self.seed,
            samples=self.samples,
            batch_size=self.batch_size,
            first=first,
            last=last,
            rank=rank,
            world=world,
        )
        return loader(self.dataset, sampler, workers, self.join, pin)


def loader(
    dataset: Dataset,
    batches: Sampler | Sequence,
    workers: int,
    join: Callable[[list], dict[str, Any]] | None = None,
    pin: bool = False,
) -> DataLoader:
    """Batches in the sampler's order, read by at most `workers` processes (0: by this one), joined by `collate` or
    `join`. A worker reads whole batches: more than there are would start for nothing, and one batch needs none.

    pin: they go to the CUDA device that the process has made its current one, and are put in pinned memory for it.
    """
    workers = min(workers, len(batches)) if len(batches) > 1 else 0  # type: ignore[arg-type]
    if workers:
        # Each worker is forked from a process that has these imported, which saves it seconds.
        multiprocessing.set_forkserver_preload(["sept.runtime.forked", __name__, type(dataset).__module__])
    return Crewed(
        dataset,
        batch_sampler=batches,
        collate_fn=join or collate,
        num_workers=workers,
        pin_memory=pin and torch.cuda.is_available(),
        multiprocessing_context=forkserver(pickle.dumps((dataset, join))) if workers else None,
        worker_init_fn=Beginning(Program.this()) if workers else None,
    )


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack what samples hold: tensors, lists of tensors (one stack a position), numbers; strings stay a list.

    torch's own collation of tensors: in a worker it stacks straight into the memory that the batch is handed over in.
    """
    batch: dict[str, Any] = {}
    for name, value in samples[0].items():
        column = [sample[name] for sample in samples]
        if isinstance(value, list):
            batch[name] = [default_collate(list(views)) for views in zip(*column, strict=True)]
        elif isinstance(value, str):
            batch[name] = column
        else:
            batch[name] = default_collate(column) if isinstance(value, Tensor) else torch.tensor(column)
    return batch
