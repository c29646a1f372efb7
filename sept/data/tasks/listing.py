"""A task from lists of image names: names are checked before the disk is, the disk before anything long starts."""

import os
import re
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from sept.data.names import leads_outside
from sept.data.tasks.layout import Layout
from sept.data.tasks.task import Example, Task
from sept.errors import DataError

_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|^\s*$")


class Listing(NamedTuple):
    """A split as an annotation file lists it: (posix path relative to the root, label) in the order of the file."""

    source: Path
    rows: list[tuple[str, int]]


def build(
    root: Path,
    classes: list[str],
    train: Listing,
    test: Listing,
    expected: Layout | str,
    listed: bool = True,
    all_tested: bool = True,
) -> Task:
    """The task of two listings below `root`. Labels are places in `classes`.

    Raises DataError for unfit or repeated names, images that are absent, a class without training images, and with
    `all_tested` one without test images.
    """
    check_classes(train.source, classes)
    _refuse_empty(classes, train, "training")
    if all_tested:
        _refuse_empty(classes, test, "test")
    check_images(root, (train, test), expected)
    return Task(classes, examples(root, train.rows), examples(root, test.rows), listed)


def check_classes(source: Path, classes: Sequence[str]) -> None:
    """Raises DataError where class names of the file `source` are repeated, empty or hold control characters."""
    seen = set()
    for name in classes:
        if _UNFIT.search(name):
            raise DataError(f"{source}: {name!a} cannot name a class; correct the file or fetch it again")
        if name in seen:
            raise DataError(f"{source}: two classes are named {name!r}; correct the file or fetch it again")
        seen.add(name)


def check_name(source: Path, number: int, name: str) -> None:
    """Raises DataError where a name could lead outside the root. `number` is its entry in `source`, from 1."""
    if leads_outside(name):
        raise DataError(
            f"{source}, entry {number:,}: {name!a} is no plain relative path (no leading /, no . or .. part, "
            "no backslash); nothing outside the data folder is read: correct the file or fetch it again"
        )


def check_images(root: Path, listings: Sequence[Listing], expected: Layout | str) -> None:
    """Raises DataError for names that are unfit or listed twice, and for images that are not there."""
    for listing in listings:
        for number, (name, _) in enumerate(listing.rows, start=1):
            check_name(listing.source, number, name)
    _refuse_repeats(listings)
    _refuse_absent(root, listings, expected)


def _refuse_repeats(listings: Sequence[Listing]) -> None:
    if len({name for listing in listings for name, _ in listing.rows}) == sum(len(each.rows) for each in listings):
        return
    seen: dict[str, str] = {}
    for source, rows in listings:
        for number, (name, _) in enumerate(rows, start=1):
            where = f"{source}, entry {number:,}"
            if name in seen:
                raise DataError(f"{where}: {name!r} is listed already ({seen[name]}); list every image once")
            seen[name] = where


def _refuse_absent(root: Path, listings: Sequence[Listing], expected: Layout | str) -> None:
    """Lists each folder once: a stat for each of 1.8 million images would take minutes on a network disk."""
    folders: dict[str, set[str]] = {}
    absent = []
    for source, rows in listings:
        for name, _ in rows:
            folder, _, file = name.rpartition("/")
            held = folders.get(folder)
            if held is None:
                held = folders[folder] = _files(root / folder)
            if file not in held:
                absent.append((name, source))
    if absent:
        (name, source), total = absent[0], sum(len(each.rows) for each in listings)
        raise DataError(
            f"{root / name}: listed in {source} but absent, with {len(absent):,} of {total:,} images; "
            f"unpack the images there: {expected}"
        )


def _files(folder: Path) -> set[str]:
    """Names of the files and links to files in a folder; none where there is no such folder."""
    try:
        with os.scandir(folder) as items:
            return {item.name for item in items if item.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); make it readable") from error


def _refuse_empty(classes: Sequence[str], listing: Listing, split: str) -> None:
    """Raises DataError where a class has no image in the split, as when a list was cut."""
    held = {label for _, label in listing.rows}
    if missing := [name for label, name in enumerate(classes) if label not in held]:
        raise DataError(
            f"{listing.source}: no {split} image of class {missing[0]!r} ({len(missing)} of {len(classes)} classes "
            "have none); the file is cut or of another release: fetch it again"
        )


def examples(root: Path, rows: Iterable[tuple[str, int]]) -> list[Example]:
    """By class, then by the bytes of the ids: the order of UTF-8 is that of code points, so strings sort the same."""
    return [Example(name, root / name, label) for name, label in sorted(rows, key=itemgetter(1, 0))]
