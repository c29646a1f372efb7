"""A labelled task read from disk: classes, training and test images. `shots` then draws the few labelled images."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sept.data.sources import Entry, head_and_tail, list_folder
from sept.errors import ConfigError, DataError

TRAIN = "train"
TESTS = ("test", "val")
"""Names of the folder of test images; where both exist, "test" is it."""


class Example(NamedTuple):
    """One labelled image. `id` is its posix path relative to the task's root; `label` its place in the classes."""

    id: str
    path: Path
    label: int


@dataclass(frozen=True)
class Task:
    """Classes sorted by the bytes of their names; the images of a split by class, then by the bytes of their ids."""

    classes: list[str]
    train: list[Example]
    test: list[Example]


def lot(seed: int, class_name: str, example_id: str) -> bytes:
    """The random number of an image: whatever else the task holds, images are drawn in the order of their lots."""
    return hashlib.blake2b(f"{seed}|{class_name}|{example_id}".encode(), digest_size=16).digest()


def read_imagefolder(root: Path, test_fraction: float, seed: int) -> Task:
    """A task of class folders: root/train/<class> with root/test/<class> (or val), or root/<class> alone.

    The second kind is split here, class by class: the images of the smallest lots are the test images, `test_fraction`
    of the class but at least one, and at least one stays for training. The first kind uses neither fraction nor seed.
    Images may lie at any depth below their class. Raises DataError for folders that make no task.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; a task is root/<class>/<image> or root/train/<class>/<image>")
    names = set(_folders(root))
    test = next((name for name in TESTS if name in names), None)
    if TRAIN in names and test is not None:
        return _read_splits(root, test)
    if names and names <= {TRAIN, *TESTS}:  # beside other folders, "train" is a class: a vehicle
        raise DataError(f"{root}: has only {sorted(names)}; it needs train and test (or val), or class folders")
    return _split(_read_classes(root), root, test_fraction, seed)


def _folders(root: Path) -> list[str]:
    """Names of the visible folders in `root`, sorted by bytes."""
    names = [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for name in names:
        if not name.isprintable():  # nor are the escapes of bytes that are not UTF-8
            raise DataError(f"{root}: the folder name {name!a} cannot name a class; rename it")
    return sorted(names, key=os.fsencode)


def _read_classes(root: Path) -> dict[str, list[Entry]]:
    """Images of each class folder, keys relative to that folder; classes sorted by bytes."""
    classes = _folders(root)
    if not classes:
        raise DataError(f"{root}: has no class folders; a task is root/<class>/<image>")
    return {name: list_folder(root / name, name) for name in classes}


def _examples(root: Path, prefix: str, entries: Iterable[Entry], label: int) -> list[Example]:
    return [Example(f"{prefix}/{entry.key}", root / prefix / entry.key, label) for entry in entries]


def _read_splits(root: Path, test: str) -> Task:
    splits = {name: _read_classes(root / name) for name in (TRAIN, test)}
    classes = list(splits[TRAIN])
    for here, there in ((TRAIN, test), (test, TRAIN)):
        if alone := [name for name in splits[here] if name not in splits[there]]:
            raise DataError(f"{root}: {len(alone)} classes of {here} are not in {there}, the first is {alone[0]!r}")
    train, tested = (
        [
            example
            for label, name in enumerate(classes)
            for example in _examples(root, f"{split}/{name}", found[name], label)
        ]
        for split, found in splits.items()
    )
    return Task(classes, train, tested)


def _split(found: dict[str, list[Entry]], root: Path, test_fraction: float, seed: int) -> Task:
    if not 0 < test_fraction < 1:
        raise ConfigError(f"task.test_fraction={test_fraction}: a share of each class between 0 and 1 is needed")
    task = Task(list(found), [], [])
    for label, (name, entries) in enumerate(found.items()):
        if len(entries) < 2:
            raise DataError(f"{root}: class {name!r} has one image; a split needs one to train on and one to test on")
        examples = _examples(root, name, entries, label)
        count = min(max(1, round(test_fraction * len(examples))), len(examples) - 1)
        drawn = set(sorted(examples, key=lambda example: lot(seed, name, example.id))[:count])
        task.test.extend(example for example in examples if example in drawn)
        task.train.extend(example for example in examples if example not in drawn)
    return task


def digest(task: Task) -> str:
    """sha256 that identifies a task by content, wherever it lies: classes, splits, ids, labels, sizes, file ends."""
    total = hashlib.sha256(repr(task.classes).encode())
    for split, examples in ((TRAIN, task.train), (TESTS[0], task.test)):
        total.update(f"|{split} {len(examples)}".encode())
        for example in examples:
            size = os.stat(example.path).st_size
            total.update(repr((example.id, example.label, size)).encode() + head_and_tail(example.path, 0, size))
    return total.hexdigest()
