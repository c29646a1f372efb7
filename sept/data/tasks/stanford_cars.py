"""Stanford Cars from its official files: cars_train/, cars_test/, devkit/, cars_test_annos_withlabels.mat."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sept.data.tasks.annotations import read_mat, whole_numbers
from sept.data.tasks.layout import Layout
from sept.data.tasks.listing import Listing, build
from sept.data.tasks.task import Task
from sept.errors import DataError

TEST_LABELS = "cars_test_annos_withlabels.mat"
"""Fetched apart from the devkit, whose cars_test_annos.mat has no classes."""
LAYOUT = Layout(
    "stanford_cars",
    (
        "cars_train/00001.jpg",
        "cars_test/00001.jpg",
        "devkit/cars_meta.mat",
        "devkit/cars_train_annos.mat",
        TEST_LABELS,
    ),
)


def read(root: Path) -> Task:
    """The official training and test images (8,144 and 8,041). `root` is stanford_cars or the folder that holds it."""
    root = LAYOUT.find(root)
    meta = root / "devkit" / "cars_meta.mat"
    [names] = read_mat(meta, ("class_names",), LAYOUT)
    classes = names.tolist()
    if not all(isinstance(name, str) for name in classes):
        raise DataError(f"{meta}: 'class_names' holds something else than names; fetch the file again")
    train = _listing(root / "devkit" / "cars_train_annos.mat", "cars_train", len(classes))
    test = _listing(root / TEST_LABELS, "cars_test", len(classes))
    return build(root, classes, train, test, LAYOUT)


def _listing(path: Path, folder: str, classes: int) -> Listing:
    [annotations] = read_mat(path, ("annotations",), LAYOUT)
    files = _field(path, annotations, "fname")
    labels = whole_numbers(path, "class", _field(path, annotations, "class"), 1, classes)
    for number, name in enumerate(files.tolist(), start=1):
        if not isinstance(name, str):
            raise DataError(f"{path}: 'fname' of annotation {number} is no file name; fetch the file again")
    return Listing(path, [(f"{folder}/{name}", label - 1) for name, label in zip(files, labels, strict=True)])


def _field(path: Path, annotations: NDArray[Any], name: str) -> NDArray[Any]:
    if name not in (annotations.dtype.names or ()):
        raise DataError(f"{path}: the annotations lack the field {name!r}; {LAYOUT}")
    return annotations[name]
