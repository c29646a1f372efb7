"""Places365-Standard from its official lists, with the images at 256 x 256 or at their original size."""

from pathlib import Path

from sept.data.tasks.annotations import read_lines
from sept.data.tasks.layout import Layout
from sept.data.tasks.listing import Listing, build
from sept.data.tasks.task import Task
from sept.errors import DataError

CATEGORIES = "categories_places365.txt"
FOLDERS = (("data_256_standard", "val_256"), ("data_large_standard", "val_large"))
"""Of training and test images; the first pair that is there is read. The official archives of training images unpack
to data_256 and data_large, which the challenge's archives do too: hence the longer names, as in torchvision."""
LAYOUT = Layout(
    "",
    (
        CATEGORIES,
        "places365_train_standard.txt",
        "places365_val.txt",
        "data_256_standard/a/airfield/00000001.jpg",  # rename data_256 to this
        "val_256/Places365_val_00000001.jpg",
    ),
)


def read(root: Path) -> Task:
    """The standard training images, and the official validation images as the test: test labels are not public.

    1,803,460 and 36,500 images. Classes have the order of their official numbers, and the names of the categories
    without the leading letter: "/a/apartment_building/outdoor" is "apartment_building/outdoor".
    """
    root = LAYOUT.find(root)
    train_folder, test_folder = _folders(root)
    classes = _categories(root / CATEGORIES)
    train = _listing(root / "places365_train_standard.txt", train_folder, len(classes))
    test = _listing(root / "places365_val.txt", test_folder, len(classes))
    return build(root, classes, train, test, LAYOUT)


def _folders(root: Path) -> tuple[str, str]:
    for pair in FOLDERS:
        if all((root / folder).is_dir() for folder in pair):
            return pair
    wanted = " nor ".join(" with ".join(pair) for pair in FOLDERS)
    raise DataError(f"{root}: has neither {wanted} (rename data_256 or data_large as it unpacks); {LAYOUT}")


def _categories(path: Path) -> list[str]:
    """Names by number, from lines like "/a/airfield 0"."""
    lines = read_lines(path, LAYOUT)
    classes = [""] * len(lines)
    for number, line in enumerate(lines, start=1):
        category, _, label = line.rpartition(" ")
        letter, _, name = category.lstrip("/").partition("/")
        if len(letter) != 1 or not name or not label.isdecimal():
            raise DataError(f"{path}, line {number}: {line!a} is not like '/a/airfield 0'; fetch the file again")
        if int(label) >= len(lines) or classes[int(label)]:
            raise DataError(
                f"{path}, line {number}: the number {label} is repeated or beyond {len(lines) - 1}, the last of "
                f"{len(lines)} lines; fetch the file again"
            )
        classes[int(label)] = name
    return classes


def _listing(path: Path, folder: str, classes: int) -> Listing:
    """Lines like "/a/airfield/00000001.jpg 0" (training) or "Places365_val_00000001.jpg 165"."""
    labels = {str(label): label for label in range(classes)}
    rows = []
    for number, line in enumerate(read_lines(path, LAYOUT), start=1):
        name, _, text = line.rpartition(" ")
        label = labels.get(text)
        if label is None or not name:
            raise DataError(
                f"{path}, line {number:,}: {line!a} is no image and its number from 0 to {classes - 1} "
                f"(by the lines of {CATEGORIES}); fetch both files again"
            )
        rows.append((f"{folder}/{name.removeprefix('/')}", label))
    return Listing(path, rows)
