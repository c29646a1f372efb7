"""Images with a class for every pixel, what every reader of a segmentation data set gives; their masks, checked."""

import hashlib
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image

from sept.data.detection.frames import Frame, read_frame
from sept.data.images import DECODER_ERRORS, Pixels, upright
from sept.data.sources.reader import File, read_labelled
from sept.errors import DataError
from sept.runtime.progress import progress

IGNORE = 255
"""Of pixels that are neither learnt from nor counted, in mask files and in masks."""
MODES = ("P", "L")  # one byte a pixel; a palette's colours are for people


class Masked(NamedTuple):
    """One image and its mask.

    id: the image's posix path relative to the data set's root. first: the value that class 0 has in the mask's file;
    smaller values are to be ignored, as IGNORE is.
    """

    id: str
    path: File
    mask: File
    first: int = 0


@dataclass(frozen=True)
class SegmentationTask:
    """Classes in the data set's own order; the images of a split by the bytes of their ids."""

    classes: list[str]
    train: list[Masked]
    test: list[Masked]

    @cached_property
    def identity(self) -> str:
        """`digest` of it, as it was when first asked: a plan asks often."""
        return digest(self)


def digest(task: SegmentationTask) -> str:
    """sha256 that identifies a task, wherever it lies: classes, splits and ids.

    No image and no mask is opened: in an official data set the id says which they are.
    """
    total = hashlib.sha256(repr(task.classes).encode())
    for split, images in (("train", task.train), ("test", task.test)):
        total.update(f"|{split} {len(images)}".encode())
        for image in images:
            total.update(repr((image.id, image.first)).encode())
    return total.hexdigest()


def check_masks(images: Sequence[Masked], classes: int, threads: int) -> None:
    """Read every mask once, so that a damaged one is told before hours of training. Raises DataError as `read_mask`."""
    with ThreadPoolExecutor(threads) as pool, progress("masks", len(images)) as advance:
        for _ in pool.map(lambda image: read_mask(image, classes), images):
            advance(1)


def read_masked(image: Masked, classes: int) -> tuple[Pixels, Pixels]:
    """An image, uint8 (H, W, 3), and its mask as `read_mask` gives it. Raises DataError naming the file."""
    return read_labelled(image.path), read_mask(image, classes)


def read_mask(image: Masked, classes: int) -> Pixels:
    """uint8 (H, W), of every pixel of the upright image its class, from 0, or IGNORE. The image's pixels are not read.

    Raises DataError naming the file for what is missing, no mask, of another size than its image or of a value that
    is no class.
    """
    frame = read_frame(image.path)
    try:
        return _labels(_upright(_values(image.mask, frame), frame), image.first, classes)
    except ValueError as error:
        raise DataError(f"{image.mask}: {error}; restore it and its image from their archive") from error


def _values(path: File, frame: Frame) -> Pixels:
    """(H, W) as stored. Its size is compared before its pixels are read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file, Image.open(file, formats=("PNG",)) as mask:
                if mask.mode not in MODES or mask.size not in (frame.size, frame.upright):
                    raise ValueError(
                        f"{_size(mask.size)} pixels of mode {mask.mode}, but its image has {_size(frame.size)} "
                        f"and a mask one byte a pixel (mode {' or '.join(MODES)})"
                    )
                return np.asarray(mask)
    except ValueError:
        raise
    except DECODER_ERRORS as error:
        raise ValueError(f"no mask can be read ({getattr(error, 'strerror', None) or 'not a whole PNG'})") from error


def _upright(values: Pixels, frame: Frame) -> Pixels:
    """Tools of these data sets showed images as stored, whatever EXIF said, so that is the frame of a mask unless its
    size can only be the upright one."""
    drawn_upright = values.shape[::-1] == frame.upright != frame.size
    return values if drawn_upright else upright(values, frame.orientation)


def _labels(values: Pixels, first: int, classes: int) -> Pixels:
    table = np.full(IGNORE + 1, IGNORE, np.uint8)
    table[first : first + classes] = np.arange(classes)
    known = np.zeros(IGNORE + 1, np.bool_)
    known[: first + classes] = known[IGNORE] = True
    found = np.bincount(values.reshape(-1), minlength=IGNORE + 1) > 0
    if (found & ~known).any():
        odd = int((found & ~known).argmax())
        raise ValueError(f"holds the value {odd}, but classes have {first} to {first + classes - 1}, or {IGNORE}")
    return table[values]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
