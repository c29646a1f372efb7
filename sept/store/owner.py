"""Which process builds what: one lock per key, and the name of the unfinished folder.

A lock only avoids duplicate work, and the operating system releases it when its process dies. Two builds never share a
folder, not even on file systems without working locks (some mounts of Lustre and NFS). There a process that finds
another's folder waits until that process is done or dead; at worst both build, and the first to publish wins.
"""

import errno
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sept.runtime.lifeline import STARTED, STATE, stat_field
from sept.store.disk import listing, storage_errors
from sept.store.step import KEY_CHARS

LOCKS = ".locks"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
POLL_S = 0.2  # builds take seconds to days


def try_lock(root: Path, key: str) -> FileLock | None:
    """The key's lock, held until released; None when someone else holds it.

    On a file system without locks it is never held: there the name of an unfinished folder says who builds.
    """
    path = _path(root, key)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except (NotImplementedError, OSError) as error:  # the first is filelock's error for a file system without locks
            if isinstance(error, OSError) and error.errno not in WITHOUT_LOCKS:
                raise
    return lock


@contextmanager
def locked(root: Path, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds the key's lock; calls `on_wait` once if someone else holds it, then waits."""
    lock = try_lock(root, key)
    if lock is None:
        on_wait()
        lock = FileLock(_path(root, key))
        with storage_errors(_path(root, key)):
            lock.acquire(poll_interval=POLL_S)
    try:
        yield
    finally:
        lock.release()


def _path(root: Path, key: str) -> Path:
    return root / LOCKS / f"{key[:KEY_CHARS]}.lock"


MARK = "@"  # separates the name of an unfinished folder from its owner: host, process, and start time
BEAT_S = 15.0  # between signs of life
SILENT_S = 90.0  # after which the process of another host counts as dead


def parse_work(name: str) -> tuple[str, str]:
    """Stage and abbreviated key of an unfinished folder, with or without an owner."""
    stage, _, key = name.partition(MARK)[0].rpartition("-")
    return stage, key


def folders(free: Path) -> list[Path]:
    """The existing variants of the unfinished folder `free`: itself, when it has no owner, then those with an owner."""
    return [free.parent / name for name in listing(free.parent) if name.partition(MARK)[0] == free.name]


def claim(free: Path) -> Path | None:
    """This process's folder to build in: that of a stopped build, else a new one; None while another process builds."""
    own = free.with_name(f"{free.name}{MARK}{_identity()}")
    found = folders(free)
    if any(is_owned(each) for each in found if each != own):
        return None
    for each in found:
        with suppress(FileNotFoundError):  # another process was quicker
            os.rename(each, own)
            return own
    own.mkdir(parents=True, exist_ok=True)
    return own


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Context manager: this process signals that it is alive and builds in its folder; on failure the folder is
    released."""
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(folder, stop), daemon=True)
    beating.start()
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.rename(folder, folder.with_name(folder.name.partition(MARK)[0]))
        raise
    finally:
        stop.set()


def is_owned(folder: Path) -> bool:
    """Whether a live process builds in this unfinished folder. One on another host counts as dead after a silence."""
    named = re.fullmatch(r"(.+)-(\d+)-(\d+)", folder.name.partition(MARK)[2])
    if named is None:  # without an owner, or not named by us
        return False
    host, pid, started = named.groups()
    if host == _host():
        return _started(int(pid)) == started
    with suppress(FileNotFoundError):
        return _now(folder.parent) - folder.stat().st_mtime < SILENT_S
    return False


def _beat(folder: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        with suppress(OSError):
            os.utime(folder)


def _now(folder: Path) -> float:
    """The time by the clock of the file system's host."""
    os.utime(folder)
    return folder.stat().st_mtime


def _identity() -> str:
    return f"{_host()}-{os.getpid()}-{_started(os.getpid())}"


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())


def _started(pid: int) -> str | None:
    """Start time of a process of this host, in the kernel's ticks; None when there is no such process."""
    if Path("/proc/self/stat").exists():
        return None if stat_field(pid, STATE) in (None, "Z") else stat_field(pid, STARTED)
    try:  # without /proc a reused pid passes for the process that had it
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "0"
