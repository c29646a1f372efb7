"""Loose images in a folder, at any depth."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sept.data.names import ACCEPTED, is_hidden, is_image
from sept.data.sources.files import Entry
from sept.errors import DataError, reason

PARTS = 256
"""A folder is scanned in about as many parts, where it holds more than one part's images."""
PART_WEIGHT = 10_000
FOLDER_WEIGHT = 1_000
"""Images a folder is taken for, before it is read: ImageNet has 1,300 a class, a flat folder may have any number."""


class Part(NamedTuple):
    """Neighbours in the order of the listing: names in the folder `below` of the root, those of folders end in "/"."""

    below: str
    names: tuple[str, ...]


def list_folder(root: Path, source: str) -> list[Entry]:
    """Images below `root` at any depth, by suffix in any case, sorted by the bytes of their relative path.

    Hidden files and folders are left out; links to files are followed. Raises DataError for a folder that is missing,
    unreadable or without images, and for what would be lost in silence: a link to a folder, a link to nothing, a name
    that is not UTF-8 (tables cannot hold it).
    """
    refuse_no_folder(root)
    entries = list(_below(root, "", _visible(root, ""), source))
    if not entries:
        raise DataError(f"{root}: holds no image at any depth ({ACCEPTED})")
    return entries


def refuse_no_folder(root: Path) -> None:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of images ({ACCEPTED})")


def folder_parts(root: Path) -> list[Part]:
    """The folder `root` cut into parts of about equal work, in order. A lone folder in it is entered first.

    Raises DataError as `list_folder` does, for what it reads.
    """
    refuse_no_folder(root)
    below, names = "", _visible(root, "")
    while len(names) == 1 and names[0].endswith("/"):
        below += names[0]
        names = _visible(root, below)
    weights = [FOLDER_WEIGHT if name.endswith("/") else 1 for name in names]
    limit = max(PART_WEIGHT, -(-sum(weights) // PARTS))
    parts: list[list[str]] = []
    filled = limit
    for name, weight in zip(names, weights, strict=True):
        if filled >= limit:
            parts.append([])
            filled = 0
        parts[-1].append(name)
        filled += weight
    return [Part(below, tuple(part)) for part in parts]


def index_part(root: Path, part: Part, source: str) -> Iterator[Entry]:
    """The images of one part, in order. Raises DataError as `list_folder` does."""
    return _below(root, part.below, part.names, source)


def _below(root: Path, below: str, names: Iterable[str], source: str) -> Iterator[Entry]:
    """Images among `names` of the folder `below`, and in the folders among them: memory holds one folder's names."""
    for name in names:
        path = below + name
        if name.endswith("/"):
            yield from _below(root, path, _visible(root, path), source)
        else:
            yield Entry(source, path, path, 0, _size(root, path))


def _visible(root: Path, below: str) -> list[str]:
    """Images and folders (with "/") in the folder `below`, so sorted that their contents come in the order of bytes."""
    try:
        with os.scandir(os.fsencode(root / below)) as items:
            named = (_named(root, below, item) for item in items)
            return sorted((name for name in named if name), key=str.encode)
    except OSError as error:
        raise DataError(f"{root / below}: cannot be listed ({reason(error)})") from error


def _named(root: Path, below: str, item: os.DirEntry[bytes]) -> str | None:
    """The name of an image, or of a folder with "/" at its end; None for anything else."""
    named = os.fsdecode(item.name)
    if is_hidden(named):
        return None
    if item.is_dir(follow_symlinks=False):
        return _utf8(root, below, item.name) + "/"
    if item.is_symlink() and item.is_dir():
        path = os.fsdecode(item.path)
        raise DataError(f"{path!a} is a link to a folder; make that folder a source of its own, or copy it")
    if is_image(named) and (item.is_symlink() or item.is_file()):
        return _utf8(root, below, item.name)
    return None


def _utf8(root: Path, below: str, name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{root / below}: the file name {name!r} is not UTF-8; rename it") from None


def _size(root: Path, path: str) -> int:
    try:
        status = os.stat(os.path.join(root, path))
    except OSError as error:
        raise DataError(f"{root / path}: cannot be read ({reason(error)})") from error
    if not stat.S_ISREG(status.st_mode):  # a pipe behind a link would be waited on for ever
        raise DataError(f"{root / path}: is a link to something that is no file; remove it")
    return status.st_size
