"""A task from lists of image names: names are checked before the disk is, the disk before anything long starts."""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from sept.data.names import Folders, check_classes, leads_outside
from sept.data.sources.packed import member_of
from sept.data.tasks.layout import Layout
from sept.data.tasks.task import Example, Task
from sept.data.tasks.tree import members
from sept.errors import DataError


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
    spelt = find_images(root, (train, test), expected)
    return Task(classes, examples(root, train.rows, spelt), examples(root, test.rows, spelt), listed)


def check_name(source: Path, number: int, name: str) -> None:
    """Raises DataError where a name could lead outside the root. `number` is its entry in `source`, from 1."""
    if leads_outside(name):
        raise DataError(
            f"{source}, entry {number:,}: {name!a} is no plain relative path (no leading /, no . or .. part, "
            "no backslash); nothing outside the data folder is read: correct the file or fetch it again"
        )


def find_images(root: Path, listings: Sequence[Listing], expected: Layout | str) -> dict[str, str]:
    """Raises DataError for names that are unfit or listed twice, and for images that are not there.

    Gives the name on the disk, relative to the root, of those that it has in another Unicode form.
    """
    for listing in listings:
        for number, (name, _) in enumerate(listing.rows, start=1):
            check_name(listing.source, number, name)
    _refuse_repeats(listings)
    return _spelt_otherwise(root, listings, expected)


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


def _spelt_otherwise(root: Path, listings: Sequence[Listing], expected: Layout | str) -> dict[str, str]:
    folders = Folders(root)
    absent, otherwise = [], {}
    for source, rows in listings:
        for name, _ in rows:
            found = _found(root, name, folders)
            if found is None:
                absent.append((name, source))
            elif found != name:
                otherwise[name] = found
    if absent:
        (name, source), total = absent[0], sum(len(each.rows) for each in listings)
        raise DataError(
            f"{root / name}: listed in {source} but absent, with {len(absent):,} of {total:,} images; "
            f"unpack the images there: {expected}"
        )
    if otherwise:
        _refuse_twice(listings, otherwise)
    return otherwise


def _found(root: Path, name: str, folders: Folders) -> str | None:
    """The name on the disk, or in an archive there; None of what is not there."""
    if member := member_of(root, name):
        return name if member[1] in members(member[0]) else None
    return folders.find(name)


def _refuse_twice(listings: Sequence[Listing], otherwise: Mapping[str, str]) -> None:
    """Raises DataError where two names that are listed are one file."""
    seen: dict[str, str] = {}
    for source, rows in listings:
        for name, _ in rows:
            other = seen.setdefault(otherwise.get(name, name), name)
            if other != name:
                raise DataError(f"{source}: {other!a} and {name!a} are one file; list every image once")


def _refuse_empty(classes: Sequence[str], listing: Listing, split: str) -> None:
    """Raises DataError where a class has no image in the split, as when a list was cut."""
    held = {label for _, label in listing.rows}
    if missing := [name for label, name in enumerate(classes) if label not in held]:
        raise DataError(
            f"{listing.source}: no {split} image of class {missing[0]!r} ({len(missing)} of {len(classes)} classes "
            "have none); the file is cut or of another release: fetch it again"
        )


def examples(root: Path, rows: Iterable[tuple[str, int]], spelt: Mapping[str, str]) -> list[Example]:
    """By class, then by the bytes of the ids: the order of UTF-8 is that of code points, so strings sort the same.

    An id is the name that is listed; `spelt` has the names on the disk that differ, of `find_images`.
    """
    ordered = sorted(rows, key=itemgetter(1, 0))
    return [_example(root, name, spelt.get(name, name), label) for name, label in ordered]


def _example(root: Path, name: str, spelt: str, label: int) -> Example:
    if member := member_of(root, name):
        archive, inside = member
        return Example(name, members(archive)[inside], label)
    return Example(name, root / spelt, label)
