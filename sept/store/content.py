"""Whether an artefact's files are what was published: looked at before a stage reads them, once a process."""

from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sept.errors import DataError
from sept.runtime import signals
from sept.store.disk import fingerprint
from sept.store.step import Artefact

AGAIN = "`python -m sept.store repair` drops it and what was built on it; then run the same command again"

_whole: set[tuple[str, int, int, int]] = set()  # files found whole: path, inode, bytes, time of the last write in ns


def check(artefact: Artefact, by_part: Collection[str] = ()) -> Artefact:
    """The artefact itself. Raises DataError naming the first file that is not what the manifest says (size, sha256).

    by_part: patterns of names of large files whose readers check each part that they read; of these the size is
    looked at here. A file that was found whole and has not been written since is not read again.
    """
    for name, known in artefact.manifest["files"].items():
        signals.look()
        _check(artefact.path / name, known, any(fnmatch(name, pattern) for pattern in by_part))
    return artefact


def _check(path: Path, known: dict[str, Any], by_part: bool) -> None:
    try:
        found = path.stat()
        if found.st_size != known["size"]:
            raise DataError(
                f"{path} has {found.st_size:,} bytes, not the {known['size']:,} that were published; {AGAIN}"
            )
        seen = (str(path), found.st_ino, found.st_size, found.st_mtime_ns)
        if by_part or seen in _whole:
            return
        if fingerprint(path) != known:
            raise DataError(f"{path} is not what was published (sha256); {AGAIN}")
        _whole.add(seen)
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read ({error.strerror}); {AGAIN}") from error
