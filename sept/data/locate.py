"""Where images lie now, never part of what identifies a result; what a pool's source holds. No torch: for plans."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sept.data.sources.files import Entry


@dataclass(frozen=True)
class Location:
    """Of a source of the pool, or of a task: how its images lie on disk and where; None where they are drawn. name: of
    a source. options: what else the reader of a task takes."""

    kind: str
    path: str | None = None
    name: str = ""
    options: tuple[tuple[str, Any], ...] = ()


FOLDER = "folder"
ARCHIVES = ("webdataset", "zip", "parquet")  # kinds whose shards make sources by their names


@lru_cache(maxsize=64)  # a sweep asks for it often
def identify(kind: str, path: str) -> tuple[str, int]:
    """Digest of what the source holds, and its number of images (0: not known before it is scanned)."""
    from sept.data.sources.layouts import identify as identified

    return identified(kind, path)


def entries(
    kind: str,
    path: str,
    threads: int,
    folder: Path,
    advance: Callable[[int], None],
    absent: Callable[[str], None],
) -> "Iterator[Entry]":
    """Every image in the order of its row; a scan that was stopped resumes in `folder`. See `scan_in_parallel`.

    Archives make sources within the source: the shards curated-000.tar, curated-001.tar, .. are `curated`.
    """
    from sept.data.sources.scan import scan_in_parallel

    for entry in scan_in_parallel(kind, path, kind, threads, folder, advance, absent):
        yield entry._replace(source=source_of(entry.shard)) if kind in ARCHIVES else entry


def source_of(shard: str) -> str:
    """The source a shard belongs to: its name without the number."""
    stem = Path(shard).stem
    return re.sub(r"[-_.]*\d+$", "", stem) or stem
