"""Oxford Flowers 102 from its official files: jpg/, imagelabels.mat, setid.mat."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sept.data.tasks.annotations import read_mat, whole_numbers
from sept.data.tasks.layout import Layout
from sept.data.tasks.listing import Listing, build
from sept.data.tasks.task import Task

LAYOUT = Layout("flowers-102", ("jpg/image_00001.jpg", "imagelabels.mat", "setid.mat"))
TRAIN, TEST = "trnid", "tstid"
"""Of setid.mat: 1,020 and 6,149 images. The third part, "valid", is not used (SEPT Table 1: 1,020 and 6,149)."""


def read(root: Path) -> Task:
    """The official training and test images. `root` is flowers-102 or the folder that holds it.

    The official files number the classes and name none, so a class is called by its number: "001" to "102".
    """
    root = LAYOUT.find(root)
    labels_file, splits_file = root / "imagelabels.mat", root / "setid.mat"
    [found] = read_mat(labels_file, ("labels",), LAYOUT)
    labels = whole_numbers(labels_file, "labels", found, 1, None)
    train, test = (
        _listing(splits_file, variable, values, labels)
        for variable, values in zip((TRAIN, TEST), read_mat(splits_file, (TRAIN, TEST), LAYOUT), strict=True)
    )
    return build(root, [f"{number:03d}" for number in range(1, max(labels) + 1)], train, test, LAYOUT)


def _listing(path: Path, variable: str, values: NDArray[Any], labels: list[int]) -> Listing:
    """The images of a split by their numbers; image n has the n-th label, and both count from 1."""
    numbers = whole_numbers(path, variable, values, 1, len(labels))
    return Listing(path, [(f"jpg/image_{number:05d}.jpg", labels[number - 1] - 1) for number in numbers])
