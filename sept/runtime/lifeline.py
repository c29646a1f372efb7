"""No process outlives the program that started it, however the program ends.

A killed program cannot stop its processes. So the kernel does (a process dies with its parent), and each data worker
also watches the program itself, as its parent is the process that it was forked from. Linux only; a no-op elsewhere.
"""

import ctypes
import multiprocessing
import os
import select
import signal
import sys
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
