"""Where a pool's images lie and what identifies them, from `pool.kind` and `pool.path`; without torch, for plans."""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from sept.data.sources import Entry, digest_listing, find_tars, list_folder, list_tars

FOLDER = "folder"  # the one source of a pool of loose files


@lru_cache(maxsize=64)  # a sweep asks for it often
def identify(kind: str, path: str) -> tuple[str, int]:
    """Digest of what the pool holds, and its number of images (0: not known before the tars are read).

    Equal after the images were moved elsewhere, different after one was changed. DataError when nothing is there.
    """
    if kind == "folder":
        entries = list_folder(Path(path), FOLDER)
        return digest_listing(entries, Path(path)), len(entries)
    tars = find_tars(path)
    whole = [Entry(source_of(tar), tar.name, tar.name, 0, tar.stat().st_size) for tar in tars]
    return digest_listing(whole, tars[0].parent), 0


def entries(kind: str, path: str) -> Iterator[Entry]:
    """Every image in the order of its pool row: sorted by source, shard and place."""
    if kind == "folder":
        yield from list_folder(Path(path), FOLDER)
        return
    tars = sorted(find_tars(path), key=lambda tar: (source_of(tar), tar.name))
    for source, shards in groupby(tars, source_of):
        yield from list_tars(list(shards), source)


def root(kind: str, path: str) -> Path:
    """The folder that shards are relative to."""
    return Path(path) if kind == "folder" else find_tars(path)[0].parent


def source_of(tar: Path) -> str:
    """The source a shard belongs to: its name without the number, `curated` for curated-000012.tar."""
    return re.sub(r"[-_.]*\d+$", "", tar.stem) or tar.stem
