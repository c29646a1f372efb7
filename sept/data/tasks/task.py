"""A labelled task: classes, training and test images; and the names of folders that are a split, not a class."""

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from sept.data.sources.files import SAMPLE_BYTES, UNKNOWN_SIZE, LocalFile, size_and_ends
from sept.data.sources.reader import File, Member
from sept.errors import DataError

TRAIN, TEST, VALIDATION = "train", "test", "val"
ROLES = {
    TRAIN: TRAIN,
    "training": TRAIN,
    TEST: TEST,
    "testing": TEST,
    VALIDATION: VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
}
"""Names of split folders, in any case, and what they hold."""
UNREAD = {
    *("trainval", "trn", "tst", "dev", "devel", "development", "eval", "evaluation", "holdout", "heldout"),
    *("split", "fold", "labelled", "labeled", "unlabelled", "unlabeled", "gallery", "query"),
}
"""Words of splits that are not read."""
NEUTRAL = {"image", "images", "img", "imgs", "photo", "photos", "data", "dataset", "set", "folder", "my"}
"""Words that may stand beside those, or at their end."""
NEAR = 0.8
"""Share of letters in common from which a word of the same first letter is a slip: trainn, vaild."""


class Example(NamedTuple):
    """One labelled image. `id` is its posix path relative to the task's root; `label` its place in the classes."""

    id: str
    path: File
    label: int


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
    if isinstance(example.path, Member):
        return repr((example.id, example.label, example.path.size)).encode() + starts.of(example.path)
    size, ends = size_and_ends(example.path)
    return repr((example.id, example.label, size)).encode() + ends


class _Starts:
    """The first bytes of members of archives; before those of an archive's first one, its size and ends."""

    def __init__(self) -> None:
        self._files: dict[Path, LocalFile] = {}

    def of(self, member: Member) -> bytes:
        begun = b""
        try:
            if member.archive not in self._files:
                size, ends = size_and_ends(member.archive)
                begun = repr(size).encode() + ends
                self._files[member.archive] = LocalFile(member.archive)
            if member.size == UNKNOWN_SIZE:  # the number of a row is no place in the file
                return begun
            return begun + self._files[member.archive].pread(SAMPLE_BYTES, member.offset)
        except OSError as error:
            raise DataError(f"{member.archive}: cannot be read ({error.strerror})") from error

    def __del__(self) -> None:
        for file in self._files.values():
            file.close()


def role(name: str) -> str | None:
    """`TRAIN`, `TEST` or `VALIDATION` for a name of `ROLES` in any case; None for any other name."""
    return ROLES.get(unicodedata.normalize("NFKC", name).strip().casefold())


def resembles(name: str) -> bool:
    """Whether a name reads like a split's: train_images, Test2017, split1, trainn."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    words = [word for word in re.findall("[a-z]+", parted.casefold()) if word not in NEUTRAL]
    return bool(words) and all(map(_near, words))


def _near(word: str) -> bool:
    bare = re.sub(f"({'|'.join(NEUTRAL)}|s)$", "", word) or word
    return any(bare == known or (bare[0] == known[0] and _slip(bare, known)) for known in (*ROLES, *UNREAD))


def _slip(word: str, known: str) -> bool:
    """Of the pen. Short words have too many neighbours that mean something else."""
    close = difflib.SequenceMatcher(None, word, known).ratio() >= NEAR
    return len(known) > 3 and (close or sorted(word) == sorted(known))


def told(found: Iterable[str], most: int = 5) -> str:
    """Names for a message: the first ones, and how many more there are."""
    names = list(found)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
