"""No process outlives the program that started it, however that one ends.

A killed program cannot end anything. So the kernel is asked to (a process dies with its parent), and each data worker
looks for itself: its parent is not the program but the process that it was forked from. On Linux; elsewhere nothing.
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
STATE, STARTED = 0, 19  # fields of /proc/PID/stat behind the name: state, and start in ticks since boot


def die_with_parent() -> None:
    """The kernel kills this process when its parent ends, even one that is stopped by SIGSTOP."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    starter = multiprocessing.parent_process()
    if starter is not None and starter.pid not in (os.getppid(), os.getpid()) and not _exists(starter.pid):
        os._exit(1)  # it ended before it could be asked


def _exists(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


def stat_field(pid: int, field: int) -> str | None:
    """A field of /proc/PID/stat behind the process's name; None where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()[field]
    except OSError:
        return None


@dataclass(frozen=True)
class Program:
    """A process, told from a later one that was given the same number. Picklable."""

    pid: int
    started: str | None

    @classmethod
    def this(cls) -> "Program":
        return cls(os.getpid(), stat_field(os.getpid(), STARTED))

    def tie(self) -> None:
        """From now on the calling process ends at once when this one does: a thread waits for that."""
        if self.started is None or not hasattr(os, "pidfd_open"):
            return
        try:
            watched = os.pidfd_open(self.pid)
        except OSError:
            os._exit(1)
        if stat_field(self.pid, STARTED) != self.started:  # after it was opened: it is this one, or another, for good
            os._exit(1)
        threading.Thread(target=_end_after, args=(watched,), name="lifeline", daemon=True).start()


@cache
def tie_to_parent(program: int) -> None:
    """Program.tie for a process of a launcher that the program with this number started itself, once."""
    if os.getppid() == program:
        Program(program, stat_field(program, STARTED)).tie()


def _end_after(watched: int) -> None:
    waiting = select.poll()
    waiting.register(watched, select.POLLIN)
    waiting.poll()
    os._exit(1)
