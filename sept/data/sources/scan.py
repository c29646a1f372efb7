"""Lists one source, whatever its layout: in one go, or by threads that leave what they find on the disk."""

import shutil
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from sept.data.names import ACCEPTED
from sept.data.sources.entry import Absent, Entry
from sept.data.sources.layouts import LAYOUTS, index, parts, root
from sept.data.sources.tables import Found, scan_shards
from sept.errors import DataError

FOLDER = "scan"
"""Where a parallel scan keeps what it found, inside the folder it is given, until its last image is taken."""


def _ignore(_: Any) -> None:
    """For callers that do not want to be told."""


def scan(kind: str, path: str, source: str, absent: Callable[[str], None] = _ignore) -> Iterator[Entry]:
    """The images of one source: archives by the bytes of their names and their members as they lie, loose files by the
    bytes of their paths, lists line by line. Streams; each key comes once.

    absent is told the keys of photos that a YFCC list names and the disk does not hold. Raises DataError for a source
    that is missing, damaged, without an image, or names one twice: the last two at the end.
    """
    index_one = partial(index, kind, root(kind, path), source=source)
    pieces = parts(kind, path)
    return _checked(kind, path, lambda: chain.from_iterable(map(index_one, pieces)), absent)


def scan_in_parallel(
    kind: str,
    path: str,
    source: str,
    threads: int,
    folder: Path,
    advance: Callable[[int], None] = _ignore,
    absent: Callable[[str], None] = _ignore,
) -> Iterator[Entry]:
    """`scan` by `threads` at a time, which goes on where a killed one stopped, when given the same `folder` again.

    advance is told the number of images, part by part. What was found is in `folder`/scan until all of it is taken.
    """
    index_one = partial(index, kind, root(kind, path), source=source)
    pieces, told = parts(kind, path), [advance]

    def found() -> Iterator[Found]:
        return scan_shards(pieces, index_one, threads, folder / FOLDER, told.pop() if told else _ignore)

    yield from _checked(kind, path, found, absent)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _checked(
    kind: str, path: str, found: Callable[[], Iterator[Found]], absent: Callable[[str], None]
) -> Iterator[Entry]:
    """Entries alone; raises DataError at the end where there was none, or a key came twice.

    Where that may be, the hashes of keys are kept, 8 bytes an image; equal hashes are looked at in a second pass.
    """
    hashes, images, missing = array("q"), 0, 0
    for each in found():
        if isinstance(each, Absent):
            absent(each.key)
            missing += 1
            continue
        images += 1
        if LAYOUTS[kind].repeats:
            hashes.append(hash(each.key))
        yield each
    if not images:
        what = f"none of its {missing:,} images is there" if missing else f"holds no image ({ACCEPTED})"
        raise DataError(f"{path}: {what}; expected: {LAYOUTS[kind].expected}")
    ordered = np.sort(np.frombuffer(hashes, np.int64))
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if suspects:
        _refuse_repeats(path, (each.key for each in found() if hash(each.key) in suspects))


def _refuse_repeats(path: str, keys: Iterator[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise DataError(f"{path}: names {key!r} twice; list every image once")
        seen.add(key)
