"""A labelled task: classes, training and test images. `shots` then draws the few labelled images."""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from sept.data.sources.files import SAMPLE_BYTES, UNKNOWN_SIZE, LocalFile, size_and_ends
from sept.data.sources.reader import Reader
from sept.errors import DataError


class Example(NamedTuple):
    """One labelled image. `id` is its posix path relative to the task's root; `label` its place in the classes.

    path: the loose file, or the archive that holds it, in which offset and size are those of an `Entry` of a source.
    size: None of a loose file.
    """

    id: str
    path: Path
    label: int
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        """The image file's bytes. Raises OSError, ImageError, or DataError where an archive is not as it was listed."""
        if self.size is None:
            return self.path.read_bytes()
        return reader_of(self.path.parent).read(self.path.name, self.offset, self.size)


@lru_cache(maxsize=4)
def reader_of(folder: Path) -> Reader:
    """One a process: archives stay open."""
    return Reader(folder)


@dataclass(frozen=True)
class Task:
    """Classes, and the images of each split by class, then by the bytes of their ids.

    Classes have the order of the official label numbers; where there are none, that of the bytes of their names.
    `listed`: official annotation files name the images, so the names say which images they are (see `digest`).
    `notes`: a line for people about each thing that lies there and is not used.
    """

    classes: list[str]
    train: list[Example]
    test: list[Example]
    listed: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def identity(self) -> str:
        """`digest` of it, as it was when first asked: a plan asks often."""
        return digest(self)


def random_key(seed: int, class_name: str, example_id: str) -> bytes:
    """The random number of an image: whatever else the task holds, images are drawn in the order of their lots."""
    return hashlib.blake2b(f"{seed}|{class_name}|{example_id}".encode(), digest_size=16).digest()


def digest(task: Task) -> str:
    """sha256 that identifies a task by content, wherever it lies: classes, splits, ids, labels, sizes, file ends.

    A `listed` task goes without sizes and file ends, so no image is opened (Places365 has 1.8 million): images that
    were resized in place under their official names count as the same. An archive is opened once, for its own ends
    and the start of each member: in a zip that is where its check sum stands.
    """
    starts = _Starts()
    total = hashlib.sha256(repr(task.classes).encode())
    if task.listed:
        total.update(b"|listed")
    for split, examples in (("train", task.train), ("test", task.test)):
        total.update(f"|{split} {len(examples)}".encode())
        for example in examples:
            total.update(_named(example) if task.listed else _sampled(example, starts))
    return total.hexdigest()


def _named(example: Example) -> bytes:
    return repr((example.id, example.label)).encode()


def _sampled(example: Example, starts: "_Starts") -> bytes:
    if example.size is not None:
        return repr((example.id, example.label, example.size)).encode() + starts.of(example)
    size, ends = size_and_ends(example.path)
    return repr((example.id, example.label, size)).encode() + ends


class _Starts:
    """The first bytes of members of archives; before those of an archive's first one, its size and ends."""

    def __init__(self) -> None:
        self._files: dict[Path, LocalFile] = {}

    def of(self, example: Example) -> bytes:
        begun = b""
        try:
            if example.path not in self._files:
                size, ends = size_and_ends(example.path)
                begun = repr(size).encode() + ends
                self._files[example.path] = LocalFile(example.path)
            if example.size == UNKNOWN_SIZE:  # the number of a row is no place in the file
                return begun
            return begun + self._files[example.path].pread(SAMPLE_BYTES, example.offset)
        except OSError as error:
            raise DataError(f"{example.path}: cannot be read ({error.strerror})") from error

    def __del__(self) -> None:
        for file in self._files.values():
            file.close()
