"""Class folders as a task, with a test split of their own or split here."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from sept.data.names import is_hidden
from sept.data.sources import Entry, list_folder
from sept.data.tasks.task import Example, Task, lot
from sept.errors import ConfigError, DataError

TRAIN = "train"
TESTS = ("test", "val")
"""Names of the folder of test images; where both exist, "test" is it."""


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
    classes = _read_classes(root).items()
    found = {name: _examples(root, name, entries, label) for label, (name, entries) in enumerate(classes)}
    return draw_split(found, root, test_fraction, seed)


def _folders(root: Path) -> list[str]:
    """Names of the visible folders in `root`, sorted by bytes."""
    names = [path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path.name)]
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


def draw_split(found: Mapping[str, list[Example]], where: Path, test_fraction: float, seed: int) -> Task:
    """Splits the examples of each class: those of the smallest lots are the test images, the others train.

    `found` has the classes in order; `where` is named in errors. Raises ConfigError for a share that is none, DataError
    for a class of one image.
    """
    if not 0 < test_fraction < 1:
        raise ConfigError(f"task.test_fraction={test_fraction}: a share of each class between 0 and 1 is needed")
    task = Task(list(found), [], [])
    for name, examples in found.items():
        if len(examples) < 2:
            raise DataError(f"{where}: class {name!r} has one image; a split needs one to train on and one to test on")
        count = min(max(1, round(test_fraction * len(examples))), len(examples) - 1)
        drawn = set(sorted(examples, key=lambda example: lot(seed, name, example.id))[:count])
        task.test.extend(example for example in examples if example in drawn)
        task.train.extend(example for example in examples if example not in drawn)
    return task
