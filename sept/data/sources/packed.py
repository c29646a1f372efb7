"""What a zip or tar holds as paths, so that the readers of data sets take it as they take a folder."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sept.data.names import ends_with, leads_outside, plain
from sept.data.sources.files import Entry
from sept.data.sources.reader import File, Member
from sept.errors import DataError

SUFFIXES = (".zip", ".tar")


def member_of(root: Path, name: str) -> tuple[Path, str] | None:
    """The zip or tar below `root`, and the member of it, that a name like photos.zip/rose/1.jpg stands for; None of a
    loose file's."""
    parts = name.split("/")
    for place, part in enumerate(parts[:-1], start=1):
        if ends_with(part, *SUFFIXES) and (archive := root.joinpath(*parts[:place])).is_file():
            return archive, "/".join(parts[place:])
    return None


def _index(archive: Path, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """Each reader is imported when an archive of its kind is there."""
    if ends_with(archive.name, ".zip"):
        from sept.data.sources.zips import index_zip

        return index_zip(archive, "", wanted)
    from sept.data.sources.tars import index_tar

    return index_tar(archive, "", wanted)


class Names:
    """The files in a zip or tar whose names are `wanted`, by the bytes of their names, and the names in each folder.

    Raises DataError for a damaged archive, and for a name that leads out of it.
    """

    def __init__(self, archive: Path, wanted: Callable[[str], bool]) -> None:
        found = []
        for entry in _index(archive, wanted):
            name = plain(entry.key.partition("/")[2])  # without the archive's own name
            if leads_outside(name):
                raise DataError(f"{archive}: the member {name!a} is no plain relative path; repack it")
            found.append(Member(archive, name, entry.offset, entry.size))
        self.files = {member.name: member for member in sorted(found, key=lambda member: member.name.encode())}
        self.folders: dict[str, dict[str, None]] = {}  # the names in one have an order, and none is there twice
        for name in self.files:
            while name:
                above, _, last = name.rpartition("/")
                name = "" if above in self.folders else above
                self.folders.setdefault(above, {})[last] = None


@dataclass(frozen=True)
class Packed:
    """A file or folder in an archive, there or not, with those methods of `Path` that readers of data sets call."""

    archive: Path
    names: Names
    inside: str = ""

    def __str__(self) -> str:
        return f"{self.archive}, {self.inside}" if self.inside else str(self.archive)

    def __truediv__(self, name: str) -> "Packed":
        return Packed(self.archive, self.names, f"{self.inside}/{name}" if self.inside else name)

    @property
    def name(self) -> str:
        return self.inside.rpartition("/")[2]

    def is_dir(self) -> bool:
        return self.inside in self.names.folders

    def is_file(self) -> bool:
        return self.inside in self.names.files

    def exists(self) -> bool:
        return self.is_dir() or self.is_file()

    def iterdir(self) -> "Iterator[Packed]":
        if not self.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such folder in the archive")
        return (self / name for name in self.names.folders[self.inside])

    def member(self) -> Member:
        if not self.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such file in the archive")
        return self.names.files[self.inside]

    def members(self) -> Iterator[Member]:
        """The file, or those in the folder at any depth, in no order."""
        left = [self]
        while left:
            path = left.pop()
            if path.is_file():
                yield path.member()
            if path.is_dir():
                left += path.iterdir()

    def read_bytes(self) -> bytes:
        return self.member().read_bytes()

    def open(self, mode: str = "rb") -> BinaryIO:
        return self.member().open(mode)


AnyPath = Path | Packed


def find(root: Path, folder: str, archive: str, part: str = "") -> AnyPath:
    """The `folder` that an official archive holds: below `root` with that `part` of it, or in the archive there.

    Where neither is there, what there is of the folder, or `root` itself, which may be it. Raises DataError for a
    damaged archive.
    """
    loose = root / folder if (root / folder).is_dir() else root
    if (root / folder / part).exists() or not (root / archive).is_file():
        return loose
    top = Packed(root / archive, Names(root / archive, lambda name: not name.endswith("/")))
    return top / folder if (top / folder).is_dir() else top


def reference(path: AnyPath) -> File:
    """To the file at a path, without the names of the whole archive: data workers are given it."""
    return path if isinstance(path, Path) else path.member()
