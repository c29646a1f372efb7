"""Check sums of a file of rows: what is read of it is what was written, or a DataError."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sept.errors import DataError

CHECKED_ROWS = 512  # that share a check sum: to take one row of a file, so many are read


def crc32_of(rows: np.ndarray) -> list[int]:
    """CRC-32 of the bytes of each CHECKED_ROWS rows of a C-contiguous array (n, ..)."""
    return [
        zlib.crc32(rows[start : start + CHECKED_ROWS].data.cast("B")) for start in range(0, len(rows), CHECKED_ROWS)
    ]


@dataclass(frozen=True)
class Sums:
    """Of the file at `path`, which holds `rows` rows of `row_bytes` from the byte `offset` on. right: which blocks were
    found right: each is looked at once. otherwise: the end of what is said of damage."""

    path: Path
    offset: int
    rows: int
    row_bytes: int
    crc32: Sequence[int]
    otherwise: str
    right: npt.NDArray[np.bool_] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Raises DataError where there is not one sum for each block."""
        expected = -(-self.rows // CHECKED_ROWS)
        if len(self.crc32) != expected:
            raise DataError(f"{self.path}: {len(self.crc32)} check sums, expected {expected}; {self.otherwise}")
        object.__setattr__(self, "right", np.zeros(expected, dtype=bool))

    def read(self, first: int, into: np.ndarray) -> None:
        """Fills C-contiguous (n, ..) with n rows from row `first`. DataError where they are not those written."""
        fill(self.path, self.offset + first * self.row_bytes, into, self.otherwise)
        for block in range(first // CHECKED_ROWS, -(-(first + len(into)) // CHECKED_ROWS)):
            start, end = block * CHECKED_ROWS, min((block + 1) * CHECKED_ROWS, self.rows)
            whole = first <= start and end <= first + len(into)
            self._check(block, into[start - first : end - first] if whole else None)

    def check(self, rows: npt.NDArray[np.int64]) -> None:
        """Reads the blocks that these rows are in, as far as they were not. Raises DataError as `read`."""
        for block in np.unique(rows // CHECKED_ROWS).tolist():
            self._check(block, None)

    def _check(self, block: int, held: np.ndarray | None) -> None:
        """held: the block's rows, where they were read."""
        if self.right[block]:
            return
        start, end = block * CHECKED_ROWS, min((block + 1) * CHECKED_ROWS, self.rows)
        if held is None:
            held = np.empty((end - start, self.row_bytes), dtype=np.uint8)
            fill(self.path, self.offset + start * self.row_bytes, held, self.otherwise)
        if zlib.crc32(held.data.cast("B")) != self.crc32[block]:
            raise DataError(
                f"{self.path}: its rows {start}..{end - 1} are not those that were written; {self.otherwise}"
            )
        self.right[block] = True


def fill(path: Path, offset: int, array: np.ndarray, otherwise: str) -> None:
    """Fills a C-contiguous array with the bytes of a file from `offset` on; DataError that ends in `otherwise`.

    It reads into memory that is there: pages of a map would each be faulted in, and count as this process's own.
    """
    left = array.data.cast("B")
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            while left and (got := file.readinto(left)):
                left = left[got:]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); {otherwise}") from error
    if left:
        raise DataError(f"{path}: ends {len(left)} bytes early; {otherwise}")
