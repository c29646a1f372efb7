"""A tree of folders with images, on the disk or inside a zip or tar: what class folders are read from."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from sept.data.names import ends_with, is_hidden, is_image
from sept.data.sources.folder import list_folder
from sept.data.sources.packed import SUFFIXES, Names, Packed
from sept.data.sources.reader import File, Member
from sept.data.tasks.task import resembles, role
from sept.errors import DataError

EXPECTED = "a task is root/<class>/<image> or root/train/<class>/<image>, in a folder, a zip or a tar"


class Inside(NamedTuple):
    """Names of the visible folders and images that lie in a folder itself, the folders sorted by bytes."""

    folders: list[str]
    images: list[str]


class Found(NamedTuple):
    """An image: its path below the folder that was asked, and where its bytes are."""

    key: str
    path: File


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
    if ends_with(root.name, *SUFFIXES) and root.is_file():
        return _entered(Archived(_images(root)))
    raise DataError(f"{root}: no such folder, zip or tar; {EXPECTED}")


@lru_cache(maxsize=4)
def members(archive: Path) -> dict[str, Member]:
    """The images in a zip or tar by their names. Raises DataError for a damaged archive."""
    return _images(archive).names.files


def _images(archive: Path) -> Packed:
    names = Names(archive, is_image)
    if not names.files:
        raise DataError(f"{archive}: holds no image at any depth; {EXPECTED}")
    return Packed(archive, names)


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
    """Inside a zip or tar, which has no folders but those that its images lie in."""

    path: Packed

    def __str__(self) -> str:
        return str(self.path)

    def inside(self) -> Inside:
        found = [*self.path.iterdir()]
        folders, images = ([each.name for each in found if kind(each)] for kind in (Packed.is_dir, Packed.is_file))
        return _fit(self, Inside(folders, images))

    def below(self, name: str) -> "Archived":
        return Archived(self.path / name)

    def images(self) -> list[Found]:
        above = f"{self.path.inside}/" if self.path.inside else ""
        found = [Found(member.name.removeprefix(above), member) for member in self.path.members()]
        return sorted(found, key=lambda each: each.key.encode())

    def holds_image(self) -> bool:
        return True


def _fit(tree: Tree, found: Inside) -> Inside:
    for name in found.folders:
        if not name.isprintable():  # nor are the escapes of bytes that are not UTF-8
            raise DataError(f"{tree}: the folder name {name!a} cannot name a class; rename it")
    found.folders.sort(key=os.fsencode)
    return found
