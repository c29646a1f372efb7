"""A tree of folders with images, on the disk or inside a zip or tar: what class folders are read from."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from sept.data.names import ends_with, is_hidden, is_image, leads_outside, plain
from sept.data.sources.files import Entry
from sept.data.sources.folder import list_folder
from sept.data.sources.tars import index_tar
from sept.data.sources.zips import index_zip
from sept.data.tasks.splits import resembles, role
from sept.errors import DataError

INDEXERS = {".zip": index_zip, ".tar": index_tar}
EXPECTED = "a task is root/<class>/<image> or root/train/<class>/<image>, in a folder, a zip or a tar"


class Inside(NamedTuple):
    """Names of the visible folders and images that lie in a folder itself, the folders sorted by bytes."""

    folders: list[str]
    images: list[str]


class Found(NamedTuple):
    """An image: its path below the folder that was asked, and where its bytes are; size: of a loose file None."""

    key: str
    path: Path
    offset: int = 0
    size: int | None = None


class Tree(Protocol):
    """A folder; its str is what messages call it."""

    def inside(self) -> Inside: ...

    def below(self, name: str) -> "Tree": ...

    def images(self) -> Sequence[Found]:
        """Those at any depth, by the bytes of their paths. Raises DataError where there are none."""

    def holds_image(self) -> bool: ...


def open_tree(root: Path) -> Tree:
    """The folder, or what is in the zip or tar: without a lone folder at its top, for so folders are packed. Raises
    DataError for what is neither, and for a damaged archive."""
    if root.is_dir():
        return Folder(root)
    for suffix, index in INDEXERS.items():
        if ends_with(root.name, suffix) and root.is_file():
            return _entered(_read(root, index(root, "")))
    raise DataError(f"{root}: no such folder, zip or tar; {EXPECTED}")


def member_of(root: Path, name: str) -> tuple[Path, str] | None:
    """The zip or tar below `root`, and the member of it, that a name like photos.zip/rose/1.jpg stands for; None of a
    loose file's."""
    parts = name.split("/")
    for place, part in enumerate(parts[:-1], start=1):
        if ends_with(part, *INDEXERS) and (archive := root.joinpath(*parts[:place])).is_file():
            return archive, "/".join(parts[place:])
    return None


@lru_cache(maxsize=4)
def members(archive: Path) -> dict[str, Found]:
    """The images in a zip or tar by their names. Raises DataError for a damaged archive."""
    suffix = archive.suffix.lower()
    return {each.key: each for each in _read(archive, INDEXERS[suffix](archive, "")).found}


def _entered(archive: "Archived") -> "Archived":
    """Inside a lone folder of folders, and in that: no split, and no class, which would hold images."""
    while True:
        folders, images = archive.inside()
        if len(folders) != 1 or images or role(folders[0]) or resembles(folders[0]):
            return archive
        inner = archive.below(folders[0])
        if inner.inside().images:
            return archive
        archive = inner


def _read(root: Path, entries: Iterable[Entry]) -> "Archived":
    found = []
    for entry in entries:
        key = plain(entry.key.partition("/")[2])  # without the archive's own name
        if leads_outside(key):
            raise DataError(f"{root}: the member {key!a} is no plain relative path; repack it")
        found.append(Found(key, root, entry.offset, entry.size))
    if not found:
        raise DataError(f"{root}: holds no image at any depth; {EXPECTED}")
    return Archived(root, "", tuple(sorted(found, key=lambda each: each.key.encode())))


@dataclass(frozen=True)
class Folder:
    """On the disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def inside(self) -> Inside:
        """Raises DataError for a folder that cannot be listed, a link to nothing in it, a name that is not UTF-8."""
        found = Inside([], [])
        try:
            with os.scandir(self.path) as items:
                for item in items:
                    if is_hidden(item.name):
                        continue
                    if item.is_dir():
                        found.folders.append(item.name)
                    elif not item.is_file() and item.is_symlink():
                        where = self.path / item.name
                        raise DataError(f"{where} is a link to nothing; restore what it led to, or remove it")
                    elif is_image(item.name):
                        found.images.append(item.name)
        except OSError as error:
            raise DataError(f"{self}: cannot be listed ({error.strerror}); make it readable") from error
        return _fit(self, found)

    def below(self, name: str) -> "Folder":
        return Folder(self.path / name)

    def images(self) -> list[Found]:
        return [Found(entry.key, self.path / entry.key) for entry in list_folder(self.path, "")]

    def holds_image(self) -> bool:
        return any(
            is_image(name) and not is_hidden(name)
            for inside, _, names in os.walk(self.path)
            if not is_hidden(os.path.relpath(inside, self.path))
            for name in names
        )


@dataclass(frozen=True)
class Archived:
    """Inside a zip or tar, which has no folders but those that its images lie in. found: by key, relative to here."""

    archive: Path
    name: str
    found: tuple[Found, ...]

    def __str__(self) -> str:
        return f"{self.archive}, {self.name}" if self.name else str(self.archive)

    @cached_property
    def _folders(self) -> dict[str, list[Found]]:
        folders: dict[str, list[Found]] = {}
        for each in self.found:
            first, slash, rest = each.key.partition("/")
            if slash:
                folders.setdefault(first, []).append(each._replace(key=rest))
        return folders

    def inside(self) -> Inside:
        return _fit(self, Inside([*self._folders], [each.key for each in self.found if "/" not in each.key]))

    def below(self, name: str) -> "Archived":
        return Archived(self.archive, f"{self.name}/{name}".lstrip("/"), tuple(self._folders[name]))

    def images(self) -> Sequence[Found]:
        return self.found

    def holds_image(self) -> bool:
        return bool(self.found)


def _fit(tree: Tree, found: Inside) -> Inside:
    for name in found.folders:
        if not name.isprintable():  # nor are the escapes of bytes that are not UTF-8
            raise DataError(f"{tree}: the folder name {name!a} cannot name a class; rename it")
    found.folders.sort(key=os.fsencode)
    return found
