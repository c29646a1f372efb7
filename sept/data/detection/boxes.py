"""Images with annotated boxes, what every reader of a detection data set gives; its boxes as queries."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sept.data.sources.reader import File


class Boxed(NamedTuple):
    """One annotated image and its n >= 0 boxes.

    id: its posix path relative to the data set's root. boxes: (n, 4) float32, left, top, right, bottom in pixels of the
    upright image, where the right and bottom edges do not belong to the box: a width is right - left. They lie in the
    image and have an area. labels: (n,) int64, places in the classes. ignore: (n,) bool, VOC's `difficult` and
    Cityscapes' crowds: not trained on, and neither hit nor miss when found.
    """

    id: str
    path: File
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]


class Instance(NamedTuple):
    """One box as a query. id: "<image id>#<place of the box>"; box: (4,) float32 as in `Boxed`."""

    id: str
    path: File
    box: NDArray[np.float32]


@dataclass(frozen=True)
class DetectionTask:
    """Classes in the data set's own order; the images of a split by the bytes of their ids.

    clipped: boxes that reached over the edge of their image and were cut there. skipped: one line for each image that
    was left out, where the data set is known to have such.
    """

    classes: list[str]
    train: list[Boxed]
    test: list[Boxed]
    clipped: int = 0
    skipped: list[str] = field(default_factory=list)

    @cached_property
    def identity(self) -> str:
        """`digest` of it, as it was when first asked: a plan asks often."""
        return digest(self)


def instances(images: Iterable[Boxed]) -> list[Instance]:
    """Every box that is not to be ignored, as a query of its own, image by image."""
    return [
        Instance(f"{image.id}#{k}", image.path, image.boxes[k])
        for image in images
        for k in np.flatnonzero(~image.ignore).tolist()
    ]


def digest(task: DetectionTask) -> str:
    """sha256 that identifies a task, wherever it lies: classes, splits, ids and annotations.

    No image is opened: in an official data set the id says which image it is.
    """
    total = hashlib.sha256(repr(task.classes).encode())
    for split, images in (("train", task.train), ("test", task.test)):
        total.update(f"|{split} {len(images)}".encode())
        for image in images:
            total.update(repr((image.id, len(image.boxes))).encode())
            total.update(image.boxes.astype("<f4").tobytes() + image.labels.astype("<i8").tobytes())
            total.update(image.ignore.tobytes())
    return total.hexdigest()
