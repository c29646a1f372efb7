"""Parquet files as a task, as Hugging Face keeps data sets: columns image ({bytes, path}, or bytes) and label."""

from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sept.data.names import check_classes, tidy
from sept.data.sources.layouts import find_archives
from sept.data.sources.parquet import class_names, index_parquet
from sept.data.sources.reader import Member
from sept.data.tasks.imagefolder import draw_split
from sept.data.tasks.task import TEST, TRAIN, VALIDATION, Example, Task, role, told
from sept.errors import DataError, reason

LABEL = "label"
EXPECTED = (
    "expected: one parquet file, or a folder with train-*.parquet and test-*.parquet (or validation-*), with the "
    "columns image and label"
)
MEND = "give every image of a class one label"


def read(path: Path, test_fraction: float, seed: int) -> Task:
    """The task of the file `path`, or of the files in the folder `path` or in its folder `data`.

    A file is of the split that its name begins with (train-00000-of-00002.parquet); where no name does, the test images
    are drawn as those of class folders are (`draw_split`). Labels are strings, or numbers whose names stand in the
    file's Hugging Face metadata, else the numbers are the names. Reads footers and the column of labels, no image.
    """
    folder, names = find_archives(
        str(path if path.is_file() or not (path / "data").is_dir() else path / "data"), "parquet"
    )
    assert isinstance(folder, Path)
    files = {folder / name: role(name.partition("-")[0].removesuffix(".parquet")) for name in names}
    rows = {file: _rows(file) for file in files}
    classes = _classes(path, list(rows.values()))
    places = {name: place for place, name in enumerate(classes)}
    found = {
        file: [
            Example(entry.key, Member(file, entry.key, entry.offset, entry.size), places[_named(label, of)])
            for entry, label in zip(index_parquet(file, ""), labels, strict=True)
        ]
        for file, (labels, of) in rows.items()
    }
    splits = {known for known in files.values() if known}
    if not splits:
        ordered = _by_class([example for examples in found.values() for example in examples])
        of_class = groupby(ordered, key=attrgetter("label"))
        return draw_split({classes[label]: list(members) for label, members in of_class}, path, test_fraction, seed)
    return _split(path, classes, files, found, splits)


def _split(
    path: Path,
    classes: list[str],
    files: dict[Path, str | None],
    found: dict[Path, list[Example]],
    splits: set[str],
) -> Task:
    if strangers := [file.name for file, known in files.items() if known is None]:
        raise DataError(f"{path}: {told(strangers)} lie beside the splits {told(sorted(splits))}; move them elsewhere")
    if TRAIN not in splits or not splits & {TEST, VALIDATION}:
        raise DataError(f"{path}: has only the split {told(sorted(splits))}; {EXPECTED}")
    test = TEST if TEST in splits else VALIDATION
    train, tested = (
        _by_class([each for file, known in files.items() if known == split for each in found[file]])
        for split in (TRAIN, test)
    )
    for split, examples in ((TRAIN, train), (test, tested)):
        held = {example.label for example in examples}
        if missing := [name for place, name in enumerate(classes) if place not in held]:
            raise DataError(
                f"{path}: no {split} image of class {missing[0]!r} ({len(missing)} of {len(classes)} classes)"
            )
    unused = sorted(splits - {TRAIN, test})
    return Task(
        classes, train, tested, notes=tuple(f"{path}: {name} is not used, for there is {test}" for name in unused)
    )


def _by_class(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda example: (example.label, example.id.encode()))


def _rows(file: Path) -> tuple[list[Any], list[str] | None]:
    """The label of each row, and the names of numbered ones. Raises DataError for a file that is damaged or cut,
    without the column, or with rows without a label."""
    try:
        schema = pq.read_schema(file)
        if LABEL not in schema.names:
            raise DataError(f"{file}: no column {LABEL!r}; its columns: {', '.join(schema.names)}; {EXPECTED}")
        labels = pq.read_table(file, columns=[LABEL], page_checksum_verification=True)[LABEL]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: damaged, cut or no parquet file ({reason(error)})") from error
    if not (
        pa.types.is_integer(labels.type) or pa.types.is_string(labels.type) or pa.types.is_large_string(labels.type)
    ):
        raise DataError(f"{file}: the column {LABEL!r} holds {labels.type}, not whole numbers or strings")
    if labels.null_count:
        raise DataError(f"{file}: {labels.null_count:,} of {len(labels):,} rows have no {LABEL}; remove them")
    values = labels.to_pylist()
    names = class_names(schema, LABEL) if pa.types.is_integer(labels.type) else None
    if names is not None and values and not 0 <= min(values) <= max(values) < len(names):
        raise DataError(f"{file}: has labels from {min(values)} to {max(values)}, and names for {len(names)} classes")
    return values, names


def _named(label: Any, names: list[str] | None) -> str:
    return tidy(names[label] if names is not None else str(label))


def _classes(path: Path, rows: list[tuple[list[Any], list[str] | None]]) -> list[str]:
    """In the order of their numbers, else of the bytes of their names."""
    listed = next((names for _, names in rows if names is not None), None)
    if any(names != listed for _, names in rows):
        raise DataError(f"{path}: its files name their classes otherwise; write them again from one data set")
    found = {label for labels, _ in rows for label in labels}
    if listed is not None:
        classes = [tidy(name) for name in listed]
    elif all(isinstance(label, int) for label in found):
        classes = [str(label) for label in sorted(found)]
    else:
        classes = sorted({tidy(str(label)) for label in found})
    check_classes(path, classes, MEND)
    return classes
