"""One lock a key: it only spares double work, and the operating system frees it when its process dies."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sept.store.artefact import KEY_CHARS
from sept.store.disk import storage_errors

LOCKS = ".locks"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
POLL_S = 0.2  # builds take seconds to days


def try_lock(root: Path, key: str) -> FileLock | None:
    """The key's lock, held until released; None when someone else holds it.

    On a file system without locks nobody holds it: there the name of an unfinished folder says who builds (`owner`).
    """
    path = _path(root, key)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except (NotImplementedError, OSError) as error:  # the first is filelock's word for a file system without locks
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
