"""Chosen images, packed once at a bounded size into one file: selections are small and read hundreds of times."""

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sept.data.annotations import Annotations, open_annotations
from sept.data.images import Pixels
from sept.errors import DataError, reason

PIXELS = "pixels.bin"
"""uint8 (H, W, 3) images back to back, uncompressed."""
INDEX = "index.npy"
"""int64 (n, 5): id, offset in bytes, height, width and CRC-32 of the pixels of each image."""

AGAIN = "`python -m sept.store repair`, and the next run packs it again"


def write_subset(folder: Path, images: Iterable[tuple[int, Pixels]], max_short_side: int) -> dict[str, Any]:
    """Packs (id, uint8 (H, W, 3)) in their order into `folder`, an unfinished artefact; gives its facts.

    An image whose shorter side is over `max_short_side` px is shrunk to it (antialiased bicubic), never enlarged. The
    facts: {"images": how many, "bytes": of pixels}. One image is in memory at a time. Raises DataError for none.
    """
    index: list[tuple[int, int, int, int, int]] = []
    offset = 0
    with open(folder / PIXELS, "wb") as file:
        for image_id, pixels in images:
            small = shrink(pixels, max_short_side)
            packed = small.tobytes()
            file.write(packed)
            index.append((image_id, offset, *small.shape[:2], zlib.crc32(packed)))
            offset += small.nbytes
    if not index:
        raise DataError(f"{folder}: no image to pack")
    np.save(folder / INDEX, np.array(index, dtype=np.int64), allow_pickle=False)
    return {"images": len(index), "bytes": offset}


def shrink(pixels: Pixels, max_short_side: int) -> Pixels:
    """uint8 (H, W, 3) with its shorter side at most `max_short_side` px, its shape kept; itself where small enough."""
    assert (pixels.dtype, pixels.shape[2:]) == (np.uint8, (3,)), (pixels.dtype, pixels.shape)
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    if shorter <= max_short_side:
        return pixels
    size = (round(width * max_short_side / shorter), round(height * max_short_side / shorter))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


class Subset:
    """Packed images by position, mapped from disk, with labels, captions or vectors if they were packed with any.
    Picklable: each worker maps its own."""

    def __init__(
        self,
        folder: Path,
        index: NDArray[np.int64],
        pixels: NDArray[np.uint8],
        annotations: Annotations | None = None,
    ) -> None:
        self._folder = folder
        self.annotations = annotations
        self._index = index
        self._pixels = pixels
        self._right = np.zeros(len(index), dtype=bool)  # images whose pixels were found to be those packed

    @classmethod
    def open(cls, folder: Path) -> "Subset":
        """The subset in `folder`. Raises DataError where a file is missing, cut or does not fit the other."""
        try:
            index = np.load(folder / INDEX, allow_pickle=False)
            pixels = np.asarray(np.memmap(folder / PIXELS, dtype=np.uint8, mode="r"))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{folder}: no readable subset ({reason(error)}); {AGAIN}") from error
        assert (index.dtype, index.shape[1:]) == (np.int64, (5,)), (index.dtype, index.shape)
        ends = np.cumsum(index[:, 2] * index[:, 3] * 3)
        if not np.array_equal(index[1:, 1], ends[:-1]) or index[0, 1] != 0 or ends[-1] != len(pixels):
            raise DataError(
                f"{folder / PIXELS}: {len(pixels):,} bytes where the index of {len(index):,} images says "
                f"{ends[-1]:,}; {AGAIN}"
            )
        return cls(folder, index, pixels, open_annotations(folder, len(index), AGAIN))

    def __len__(self) -> int:
        return len(self._index)

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) ids, as given when packed."""
        return self._index[:, 0]

    def image(self, position: int) -> Pixels:
        """uint8 (H, W, 3), a read-only view of the file. Raises DataError where it is not what was packed."""
        if not 0 <= position < len(self._index):
            raise IndexError(f"image {position} of a subset of {len(self._index):,}")
        _, offset, height, width, crc32 = self._index[position].tolist()
        pixels = self._pixels[offset : offset + height * width * 3]
        if not self._right[position]:
            if zlib.crc32(pixels.data) != crc32:
                raise DataError(f"{self._folder / PIXELS}: image {position} is not what was packed; {AGAIN}")
            self._right[position] = True
        return pixels.reshape(height, width, 3)

    def annotation(self, position: int) -> dict[str, Any]:
        """{"label": number of its class}, {"caption": text}, {"vector": float32 (D,)} or {}."""
        return {} if self.annotations is None else self.annotations.of(position)

    def stacked(self) -> Pixels | None:
        """All images as one uint8 (n, H, W, 3) view, or None where their sizes differ. Raises DataError as `image`."""
        if (self._index[:, 2:4] != self._index[0, 2:4]).any():
            return None
        for position in range(len(self)):
            self.image(position)
        height, width = self._index[0, 2:4].tolist()
        return self._pixels.reshape(len(self._index), height, width, 3)

    def __reduce__(self) -> tuple[Any, ...]:
        return Subset.open, (self._folder,)


class Joined:
    """Packed images of several subsets by position, those of the first one first. Picklable like them."""

    def __init__(self, parts: Sequence[Subset]) -> None:
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts]).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def image(self, position: int) -> Pixels:
        """As `Subset.image`."""
        if not 0 <= position < len(self):
            raise IndexError(f"image {position} of subsets of {len(self):,}")
        part = bisect_right(self._ends, position)
        return self.parts[part].image(position - self._ends[part] + len(self.parts[part]))

    def annotation(self, position: int) -> dict[str, Any]:
        """None: what learns from annotations is not shown a task's images."""
        return {}
