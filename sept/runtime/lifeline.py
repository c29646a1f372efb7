"""New processes: none outlives the program that started it, however that one ends, and none runs its main module again.

A killed program cannot stop its processes. So the kernel does (a process dies with its parent), and each data worker
also watches the program itself, as its parent is the process that it was forked from. Linux only; a no-op elsewhere.

multiprocessing imports the script that was started in every new process, because objects sent there may be defined in
it: a script without `if __name__ == "__main__":` starts its work again in each. What we send comes from packages: our
processes need no main module, and start sooner without it. If an object is defined in the script, it is imported.
"""

import ctypes
import multiprocessing
import multiprocessing.spawn
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

MAIN = ("init_main_from_name", "init_main_from_path")  # what a new process is told to run
_turn = threading.Lock()
DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
STATE, STARTED = 0, 19  # fields of /proc/PID/stat after the name: state, and start in ticks since boot


def die_with_parent() -> None:
    """The kernel kills this process when its parent ends, even while this process is stopped by SIGSTOP."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    starter = multiprocessing.parent_process()
    if starter is not None and starter.pid not in (os.getppid(), os.getpid()) and not _exists(starter.pid):
        os._exit(1)  # the parent ended before the call


def _exists(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


def stat_field(pid: int, field: int) -> str | None:
    """A field of /proc/PID/stat after the process's name; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()[field]
    except OSError:
        return None


@dataclass(frozen=True)
class Program:
    """A process, distinguished from a later one with the same pid. Picklable."""

    pid: int
    started: str | None

    @classmethod
    def this(cls) -> "Program":
        return cls(os.getpid(), stat_field(os.getpid(), STARTED))

    def tie(self) -> None:
        """From now on the calling process ends as soon as this one does: a thread waits for that."""
        if self.started is None or not hasattr(os, "pidfd_open"):
            return
        try:
            watched = os.pidfd_open(self.pid)
        except OSError:
            os._exit(1)
        if stat_field(self.pid, STARTED) != self.started:  # after opening, which fixes the process
            os._exit(1)
        threading.Thread(target=_end_after, args=(watched,), name="lifeline", daemon=True).start()


@cache
def tie_to_parent(program: int) -> None:
    """Program.tie for a launcher's process that the program with this pid started directly; only once."""
    if os.getppid() == program:
        Program(program, stat_field(program, STARTED)).tie()


def _end_after(watched: int) -> None:
    waiting = select.poll()
    waiting.register(watched, select.POLLIN)
    waiting.poll()
    os._exit(1)


@contextmanager
def _without_main() -> Iterator[None]:
    """Inside, a process that this thread starts is told of no main module."""
    starting = threading.get_ident()
    with _turn:
        prepare = multiprocessing.spawn.get_preparation_data

        def prepared(name: str) -> dict[str, Any]:
            told = prepare(name)
            kept = threading.get_ident() != starting  # of a process of somebody else's
            return {key: value for key, value in told.items() if kept or key not in MAIN}

        multiprocessing.spawn.get_preparation_data = prepared
        try:
            yield
        finally:
            multiprocessing.spawn.get_preparation_data = prepare


class _WithoutMain(BaseProcess):
    """A process that does not import the main module of the program that starts it."""

    def start(self) -> None:
        with _without_main():
            super().start()


class _Spawned(_WithoutMain, context.SpawnProcess):
    pass


class _Spawn(context.SpawnContext):
    Process = _Spawned  # type: ignore[assignment]


if sys.platform != "win32":  # which has none

    class _Forked(_WithoutMain, context.ForkServerProcess):
        pass

    class _ForkServer(context.ForkServerContext):
        Process = _Forked  # type: ignore[assignment]


def spawn(sent: bytes = b"") -> context.SpawnContext:
    """multiprocessing's context of processes that begin as a new interpreter. sent: what they are given, pickled."""
    return context.SpawnContext() if _needs_main(sent) else _Spawn()


def forkserver(sent: bytes) -> context.ForkServerContext:
    """The same of processes that are forked from one which has imported what is preloaded, and does nothing else."""
    return context.ForkServerContext() if _needs_main(sent) else _ForkServer()


def _needs_main(sent: bytes) -> bool:
    """Whether a pickle names the main module."""
    return b"__main__" in sent
