"""The embedded world's segmentation task: its detection task with a mask for every scene, which fills the boxes.

Boards of other domains have no box: they are background, and so only a board's motif tells its class.
"""

from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from sept.data.detection.boxes import Boxed
from sept.data.detection.frames import read_frame
from sept.data.detection.patterns_boxes import IMAGES, read_patterns_boxes
from sept.data.listed import require
from sept.data.segmentation.masks import Masked, SegmentationTask

MASKS, END = "SegmentationClass", ".png"
AGAIN = "draw the task again"


def write_masks(root: Path) -> None:
    """<root>/SegmentationClass/<id>.png of the task that `draw_boxed_task` drew into `root`: 0 is background."""
    task = read_patterns_boxes(root)
    (root / MASKS).mkdir(exist_ok=True)
    for image in [*task.train, *task.test]:
        width, height = read_frame(image.path).upright
        mask = np.zeros((height, width), np.uint8)
        for (left, top, right, bottom), label in zip(image.boxes.astype(int), image.labels.tolist(), strict=True):
            mask[top:bottom, left:right] = label + 1
        Image.fromarray(mask).save(_mask(root, image))


def read_patterns_masks(root: Path) -> SegmentationTask:
    """Trained on trainval, tested on test. Raises DataError as `read_patterns_boxes`, and for a missing mask."""
    boxed = read_patterns_boxes(root)
    require(root / MASKS, END, [_stem(image) for image in [*boxed.train, *boxed.test]], f"{IMAGES} has it", AGAIN)
    train, test = (
        [Masked(image.id, image.path, _mask(root, image)) for image in images] for images in (boxed.train, boxed.test)
    )
    return SegmentationTask(["background", *boxed.classes], train, test)


def _mask(root: Path, image: Boxed) -> Path:
    return root / MASKS / f"{_stem(image)}{END}"


def _stem(image: Boxed) -> str:
    return PurePosixPath(image.id).stem
