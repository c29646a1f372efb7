"""A CSV file as a task: columns path and label, and split where the test images are chosen already."""

import csv
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from sept.data.names import check_classes, is_hidden, plain, tidy
from sept.data.tasks.annotations import unreadable
from sept.data.tasks.imagefolder import draw_split
from sept.data.tasks.listing import Listing, build, examples, find_images
from sept.data.tasks.task import Task
from sept.errors import DataError

REQUIRED, OPTIONAL = {"path", "label"}, {"split"}
SPLITS = ("train", "test")
EXPECTED = (
    "expected: a header with path,label and maybe split, then a line an image, cells between commas, paths relative to "
    "the CSV file"
)


class Row(NamedTuple):
    """A line of the file. `split` is "" where the file has no such column."""

    path: str
    label: str
    split: str


def read(path: Path, test_fraction: float, seed: int) -> Task:
    """The task of the CSV file `path` (UTF-8, a header line, columns in any order); its folder is the root. A path like
    photos.zip/rose/1.jpg names a member of a zip or tar.

    Blanks at the ends of cells do not count, and labels that differ by Unicode form alone are one class; those that
    differ by case or by blanks inside are refused. Classes are the labels sorted by their bytes. Without a split column
    the test images are drawn as those of class folders are, see `draw_split`; with one, neither fraction nor seed is
    used.
    """
    rows = [row for row in _rows(path) if not is_hidden(row.path)]
    if not rows:
        raise DataError(f"{path}: lists no image; {EXPECTED}")
    classes = sorted({row.label for row in rows})
    check_classes(path, classes, "give every image of a class one spelling")
    labels = {name: label for label, name in enumerate(classes)}
    if rows[0].split:
        train, test = (
            Listing(path, [(row.path, labels[row.label]) for row in rows if row.split == split]) for split in SPLITS
        )
        return build(path.parent, classes, train, test, EXPECTED, listed=False)
    listing = Listing(path, [(row.path, labels[row.label]) for row in rows])
    spelt = find_images(path.parent, [listing], EXPECTED)
    of_class = groupby(examples(path.parent, listing.rows, spelt), key=attrgetter("label"))
    found = {classes[label]: list(members) for label, members in of_class}
    return draw_split(found, path, test_fraction, seed)


def _rows(path: Path) -> Iterator[Row]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets write a byte order mark
            lines = csv.reader(file, strict=True, skipinitialspace=True)
            header = _header(path, next(lines, []))
            for cells in lines:
                if cells:  # an empty line has none
                    yield _row(f"{path}, line {lines.line_num}", header, cells)
    except OSError as error:
        raise unreadable(path, error, EXPECTED) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no CSV in UTF-8 ({error}); {EXPECTED}") from error


def _header(path: Path, cells: list[str]) -> list[str]:
    cells = [tidy(cell).casefold() for cell in cells]
    if len(set(cells)) < len(cells) or not REQUIRED <= set(cells) <= REQUIRED | OPTIONAL:
        raise DataError(f"{path}, line 1: the columns are {','.join(cells)!a}; {EXPECTED}")
    return cells


def _row(where: str, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise DataError(f"{where}: {len(cells)} cells under {len(header)} columns; quote a cell that holds a comma")
    row = Row(**{"split": "", **{column: cell.strip() for column, cell in zip(header, cells, strict=True)}})
    row = row._replace(path=plain(row.path), label=tidy(row.label), split=row.split.casefold())
    if not row.label:
        raise DataError(f"{where}: the label is empty; give one or leave the image out")
    if "split" in header and row.split not in SPLITS:
        raise DataError(f"{where}: the split is {row.split!a}; it must be train or test")
    return row
