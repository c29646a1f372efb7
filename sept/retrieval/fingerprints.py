"""Perceptual fingerprints ("prints"), which identify copies after re-encoding, resizing, mirroring or a slight crop.

From decoded pixels, computes what `duplicates` compares. A print is the usual perceptual hash before binarisation (8 x
8 grey area means, compared by correlation): images of one class of the embedded world are so similar that bits do not
suffice. At 0.05 % of clean images flagged, 63 bits of the DCT (pHash) and 128 differences (dHash) find at most 36 % of
the copies re-encoded at JPEG 30 to 95; the correlation finds all of them (benchmarks/duplicates.py). Shapes: n images,
W windows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sept.data.images import STRIP_PIXELS, Pixels
from sept.errors import DataError

THUMBNAIL = 32  # px, the side at which an image is kept: 1 KB
FINGERPRINT = 8  # px, the side of a print
KEPT = (0.985, 0.97, 0.955, 0.94)  # sides of the windows, as shares of the whole image's
PLACES = (0.0, 0.5, 1.0)  # positions of a window, as shares of the remaining margin
FLAT = 2.0  # grey levels of deviation: below it a print would be noise, and an image is no copy of any
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601

RECORD = np.dtype([("grey", np.uint8, (THUMBNAIL, THUMBNAIL)), ("colour", "<f4", (3,))])
"""The thumbnail of one image: grey levels, squashed to a square, and the mean colour, 0..255."""
FILE = "thumbnails.bin"
SIZES = 256  # image sizes whose weights are cached: up to half a megabyte each

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails of n images: grey (n, THUMBNAIL, THUMBNAIL) uint8, and mean colour (n, 3), 0..255."""

    grey: npt.NDArray[np.uint8]
    colour: FloatArray

    @classmethod
    def of(cls, records: Iterable[np.ndarray]) -> "Thumbnails":
        """Of n records of `thumbnail`."""
        kept = np.array(list(records), RECORD)
        return cls(np.ascontiguousarray(kept["grey"]), np.ascontiguousarray(kept["colour"]))

    @classmethod
    def open(cls, folder: Path) -> "Thumbnails":
        """Those that `write_thumbnails` wrote in `folder`. Raises DataError if there are none."""
        try:
            return cls.of(np.fromfile(folder / FILE, RECORD))
        except OSError as error:
            raise DataError(f"{folder / FILE}: no thumbnails ({error.strerror}); make it again") from error

    def __len__(self) -> int:
        return len(self.grey)

    def take(self, which: npt.ArrayLike) -> "Thumbnails":
        """Those of `which`, in its order."""
        which = np.asarray(which)
        return Thumbnails(self.grey[which], self.colour[which])

    def mirrored(self) -> "Thumbnails":
        """The same images, left and right exchanged."""
        return Thumbnails(np.ascontiguousarray(self.grey[:, :, ::-1]), self.colour)


@dataclass(frozen=True)
class Fingerprints:
    """unit (..., PRINT * PRINT) float32 of mean 0 and length 1, or 0 where flat; and what normalisation removed: the
    mean grey level (...,) and the contrast (...,), the standard deviation in grey levels."""

    unit: FloatArray
    level: FloatArray
    contrast: FloatArray


def thumbnail(pixels: Pixels) -> np.ndarray:
    """The `RECORD` of an image uint8 (H, W, 3) of any size: half a millisecond at 500 px."""
    height, width = pixels.shape[:2]
    light, sums = np.empty((height, width), np.float32), np.zeros(width * 3)
    step = max(1, STRIP_PIXELS // width)
    for top in range(0, height, step):  # in strips, to save memory
        strip = pixels[top : top + step].astype(np.float32)
        light[top : top + step] = strip @ LUMA
        # Whole numbers below 2 ** 24, so exact in any order; a mean over both axes at once takes ten times as long.
        sums += np.ones(len(strip), np.float32) @ strip.reshape(len(strip), -1)
    rows, columns = area_means(height, 0, height, THUMBNAIL), area_means(width, 0, width, THUMBNAIL)
    record = np.empty((), RECORD)
    record["grey"] = np.rint(rows @ light @ columns.T)
    record["colour"] = sums.reshape(width, 3).sum(0) / (height * width)
    return record


def thumbnails(images: Iterable[Pixels]) -> Thumbnails:
    """Those of images uint8 (H, W, 3) of any sizes."""
    return Thumbnails.of(thumbnail(pixels) for pixels in images)


def write_thumbnails(folder: Path, records: Iterable[np.ndarray]) -> None:
    """Writes records one by one: 1 KB per image."""
    with open(folder / FILE, "wb") as file:
        for record in records:
            file.write(record.tobytes())


def global_hash(of: Thumbnails) -> Fingerprints:
    """One print per image, of the whole image."""
    return _fingerprints(of, ((0.0, 0.0, 1.0),))


def window_hashes(of: Thumbnails) -> Fingerprints:
    """(n, W) prints: that of the whole image first, then of windows of the sides `KEPT` at 3 x 3 `PLACES`: any crop by
    up to 6 % of a side is near one of them."""
    crops = ((top * (1 - kept), left * (1 - kept), kept) for kept in KEPT for top in PLACES for left in PLACES)
    return _fingerprints(of, ((0.0, 0.0, 1.0), *crops))


@lru_cache(SIZES)
def area_means(length: int, first: float, last: float, cells: int) -> FloatArray:
    """(cells, length) weights: means over equal cells of [first, last) of `length` pixels, by share of each pixel.

    Means over areas nest: of an enlarged image they are those of the image, whereas interpolation blurs what it
    enlarges, which at 16 px would look like another image.
    """
    edges = np.linspace(first, last, cells + 1)[:, None]
    covered = np.clip(edges - np.arange(length), 0, 1)  # of each pixel, left of each edge
    return (np.diff(covered, axis=0) * (cells / (last - first))).astype(np.float32)


@cache
def tents(first: float, last: float) -> FloatArray:
    """(PRINT, CARD) weights: tents over the cells of [first, last) of a card and half of their neighbours, cut off at
    its ends. Plain means over the cells lose 7 to 17 % of the resized copies of images of 32 px, tents 2 %."""
    centres = np.arange(THUMBNAIL) + 0.5
    cell = (last - first) / FINGERPRINT
    middle = first + (np.arange(FINGERPRINT)[:, None] + 0.5) * cell
    inside = np.clip(np.minimum(centres + 0.5, last) - np.maximum(centres - 0.5, first), 0, 1)
    weights = np.clip(1 - np.abs(centres - middle) / cell, 0, None) * inside
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _fingerprints(of: Thumbnails, boxes: Iterable[tuple[float, float, float]]) -> Fingerprints:
    """Prints (n, W, .) of boxes (top, left, side) in shares of the side; without the axis W for the whole alone."""
    grey = of.grey.astype(np.float32)
    cut = []
    for box in boxes:
        top, left, side = (THUMBNAIL * share for share in box)
        rows, columns = tents(top, top + side), tents(left, left + side)
        cut.append((rows @ grey @ columns.T).reshape(len(of), FINGERPRINT * FINGERPRINT))
    means = np.stack(cut, axis=1) if len(cut) > 1 else cut[0]
    level = means.mean(-1)
    means -= level[..., None]
    contrast = means.std(-1)
    length = np.where(contrast > FLAT, contrast * FINGERPRINT, np.inf)
    return Fingerprints((means / length[..., None]).astype(np.float32), level, contrast)
