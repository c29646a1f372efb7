"""Durable, atomic files and folders: written under a temporary name and renamed. And which process builds what.

One lock per key avoids duplicate work, and the operating system releases it when its process dies. Two builds never
share a folder, not even on file systems without working locks (some mounts of Lustre and NFS). There a process that
finds another's folder waits until that process is done or dead; at worst both build, and the first to publish wins.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sept.errors import DataError, SeptError, StorageError
from sept.runtime.failures import refusal
from sept.runtime.lifeline import STARTED, STATE, stat_field
from sept.store.step import KEY_CHARS

REMOVED = ".removed"  # the store's folder for what is being deleted
LOCKS = ".locks"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
POLL_S = 0.2  # builds take seconds to days
MARK = "@"  # separates the name of an unfinished folder from its owner: host, process, and start time
BEAT_S = 15.0  # between signs of life
SILENT_S = 90.0  # after which the process of another host counts as dead


@contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    """Context manager: an OSError of writing at `where` becomes a StorageError."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {where}: {reason}; free space or choose another store root") from error


@contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """Context manager for writing in `folder`: a disk error raises StorageError, whatever library met it."""
    try:
        yield
    except SeptError:
        raise
    except Exception as error:
        found = refusal(error, folder)
        if found is None:
            raise
        raise found from error


def temporary_name(name: str) -> str:
    """Where `write_json` writes before it renames."""
    return f".{name}.tmp"


def write_json(path: Path, value: Any, aside: str | None = None) -> None:
    """Replaces `path` atomically. aside: the temporary file's name; None is for one writer at a time: the next
    overwrites a crashed writer's file."""
    temporary = path.with_name(aside or temporary_name(path.name))
    with open(temporary, "w", encoding="ascii") as file:
        json.dump(value, file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flushes a file's content or a folder's entries to disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def listing(folder: Path) -> list[str]:
    """Names in `folder` sorted by bytes; none when it does not exist."""
    return sorted(names(folder), key=os.fsencode)


def names(folder: Path) -> list[str]:
    """The same in no order."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"cannot read {folder}: {error.strerror}") from error


def payload(folder: Path, but: frozenset[str]) -> list[str]:
    """Files under `folder`, as sorted paths relative to it, leaving out the entries `but` at its top.

    Raises DataError for a link or special file: an artefact contains its own data.
    """
    found = []
    for name in listing(folder):
        path = folder / name
        if name in but:
            continue
        if path.is_dir() and not path.is_symlink():
            found += [f"{name}/{below}" for below in payload(path, frozenset())]
        elif path.is_file() and not path.is_symlink():
            found.append(name)
        else:
            raise DataError(f"{path} is a link or special file: an artefact holds plain files only")
    return found


def permit(path: Path, like: Path) -> None:
    """Gives `path` the permissions of `like`, which was opened normally and so follows the umask: libraries that write
    through `tempfile` leave files that only their owner can read."""
    wanted, found = (stat.S_IMODE(each.stat().st_mode) for each in (like, path))
    if found != wanted:
        with suppress(PermissionError):  # owned by another user, whose stopped build was resumed here
            path.chmod(wanted)


def fingerprint(path: Path) -> dict[str, Any]:
    """{size in bytes, sha256} of a file."""
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def sha256(path: Path) -> str:
    """64 hexadecimal digits, of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folders(folder: Path) -> None:
    """Syncs `folder` and every folder below it, deepest first."""
    for path, _, _ in os.walk(folder, topdown=False):
        sync(Path(path))


def discard(root: Path, folder: Path) -> None:
    """Removes `folder` of the store `root` with one rename, then frees its space: it never exists in part."""
    (root / REMOVED).mkdir(exist_ok=True)
    doomed = root / REMOVED / uuid.uuid4().hex
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)  # `sweep` frees what is left


def sweep(root: Path) -> None:
    """Frees what interrupted removals left behind."""
    for name in listing(root / REMOVED):
        shutil.rmtree(root / REMOVED / name, ignore_errors=True)


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
