"""Durable, atomic files and folders: written under a temporary name and renamed."""

import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sept.errors import DataError, SeptError, StorageError
from sept.runtime.failures import refusal

REMOVED = ".removed"  # the store's folder for what is being deleted


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
    try:
        return sorted(os.listdir(folder), key=os.fsencode)
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
