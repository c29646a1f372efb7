"""One lock a key: it only spares double work, and the operating system frees it when its process dies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sept.store.artefact import KEY_CHARS
from sept.store.disk import storage_errors

LOCKS = ".locks"
POLL_S = 0.2  # builds take seconds to days


def try_lock(root: Path, key: str) -> FileLock | None:
    """The key's lock, held until released; None when someone else holds it."""
    path = _path(root, key)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
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
