"""Annotated boxes in the frame of the pixels that are read: turned upright with them, and cut at their edges."""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sept.data.images import DECODER_ERRORS, FORMATS, ORIENTATION_TAG, ORIENTATIONS
from sept.data.sources.packed import AnyPath
from sept.data.sources.reader import Member
from sept.errors import DataError

Size = tuple[int, int]
"""Width and height in pixels."""


class Frame(NamedTuple):
    """Size of an image as it is stored, and its EXIF orientation, 1 where it is stored upright."""

    size: Size
    orientation: int = 1

    @property
    def upright(self) -> Size:
        """Size of the decoded image."""
        return self.size[::-1] if ORIENTATIONS.get(self.orientation, (False,))[0] else self.size


def read_frame(path: AnyPath | Member) -> Frame:
    """Of a loose file by its header alone. Raises DataError for what is missing, no image or damaged in its archive."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
                return Frame(image.size, int(image.getexif().get(ORIENTATION_TAG, 1)))
    except DataError as error:
        raise DataError(f"{path}: {error}; restore this file from its archive") from error
    except DECODER_ERRORS as error:
        reason = getattr(error, "strerror", None) or f"not an image of {'/'.join(FORMATS)}"
        raise DataError(f"{path}: {reason}; restore this file from its archive") from error


def turn_upright(boxes: NDArray[np.float64], stated: Size | None, frame: Frame) -> NDArray[np.float64]:
    """Boxes (n, 4) drawn on an image of the stated size, on the upright one (the pixels `sept.data.images` gives).

    Tools of these data sets showed images as stored, whatever EXIF said, so that is the frame of the boxes unless the
    stated size can only be the upright one. Raises ValueError for a stated size that is neither.
    """
    if stated not in (None, frame.size, frame.upright):
        raise ValueError(
            f"is for {stated[0]} x {stated[1]} pixels, but the image has {frame.size[0]} x {frame.size[1]}"
        )
    drawn_upright = stated == frame.upright != frame.size
    if frame.orientation not in ORIENTATIONS or drawn_upright:
        return boxes
    swap, flip_rows, flip_columns = ORIENTATIONS[frame.orientation]
    left, top, right, bottom = boxes.T
    if swap:
        left, top, right, bottom = top, left, bottom, right
    width, height = frame.upright
    if flip_rows:
        top, bottom = height - bottom, height - top
    if flip_columns:
        left, right = width - right, width - left
    return np.stack([left, top, right, bottom], axis=1)


def clip(boxes: NDArray[np.float64], size: Size) -> tuple[NDArray[np.float64], int]:
    """Boxes (n, 4) cut at the edges of the image, and how many were cut. Raises ValueError where no area is left."""
    clipped = np.clip(boxes, 0, np.array([*size, *size]))
    empty = (clipped[:, 2:] <= clipped[:, :2]).any(axis=1)
    if empty.any():
        corners = ", ".join(f"{value:g}" for value in boxes[empty.argmax()].tolist())
        raise ValueError(f"has a box without area in the image of {size[0]} x {size[1]} pixels: ({corners})")
    return clipped, int((clipped != boxes).any(axis=1).sum())
