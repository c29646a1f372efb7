"""Files of a feature store: shards of float16 vectors, each with a commit mark; how they are named, written, checked.

A shard is `shard-NNNNNN.npy` plus a `.json` of the same name that is written last and commits it: its rows, its hash
and its skipped images. With checksums of rows, so that reading other than what was written raises DataError.
"""

import io
import json
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from sept.errors import DataError, StorageError
from sept.runtime.signals import look
from sept.store.disk import sha256
from sept.store.step import checksum

CHECKED_ROWS = 512  # rows per checksum: to read one row, this many are read


def crc32_of(rows: np.ndarray) -> list[int]:
    """CRC-32 of the bytes of each CHECKED_ROWS rows of a C-contiguous array (n, ..)."""
    return [
        zlib.crc32(rows[start : start + CHECKED_ROWS].data.cast("B")) for start in range(0, len(rows), CHECKED_ROWS)
    ]


@dataclass(frozen=True)
class Sums:
    """Checksums of the file at `path`, which holds `rows` rows of `row_bytes` from the byte `offset` on. right: which
    blocks were verified: each is checked once. otherwise: the remedy, at the end of error messages."""

    path: Path
    offset: int
    rows: int
    row_bytes: int
    crc32: Sequence[int]
    otherwise: str
    right: npt.NDArray[np.bool_] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Raises DataError unless there is one sum per block."""
        expected = -(-self.rows // CHECKED_ROWS)
        if len(self.crc32) != expected:
            raise DataError(f"{self.path}: {len(self.crc32)} checksums, expected {expected};  {self.otherwise}")
        object.__setattr__(self, "right", np.zeros(expected, dtype=bool))

    def read(self, first: int, into: np.ndarray) -> None:
        """Fills C-contiguous (n, ..) with n rows from row `first`. DataError if they differ from what was written."""
        fill(self.path, self.offset + first * self.row_bytes, into, self.otherwise)
        for block in range(first // CHECKED_ROWS, -(-(first + len(into)) // CHECKED_ROWS)):
            start, end = block * CHECKED_ROWS, min((block + 1) * CHECKED_ROWS, self.rows)
            whole = first <= start and end <= first + len(into)
            self._check(block, into[start - first : end - first] if whole else None)

    def check(self, rows: npt.NDArray[np.int64]) -> None:
        """Reads and verifies the blocks of these rows that were not verified yet. Raises DataError as `read` does."""
        for block in np.unique(rows // CHECKED_ROWS).tolist():
            self._check(block, None)

    def _check(self, block: int, held: np.ndarray | None) -> None:
        """held: the block's rows, if already read."""
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

    It reads into existing memory: pages of a memory map would be faulted in one by one, and count as this process's
    memory.
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


REPAIR = "`python -m sept.store repair`, and the next run embeds what is missing"
ROWS_AT_ONCE = 8192  # of a shard, in float32


@dataclass(frozen=True)
class Skip:
    """One image that could not be embedded: its pool row, its key there, and why."""

    row: int
    key: str
    reason: str


@dataclass(frozen=True)
class Shard:
    """The content of a shard's commit mark: it holds rows [first_row, first_row + rows) of the pool."""

    first_row: int
    rows: int
    dim: int
    sha256: str
    crc32: list[int]  # of the bytes of each CHECKED_ROWS rows (`crc32_of`)
    residual: float  # the largest length of the difference between a row and its bfloat16 form
    skipped: list[Skip]

    @property
    def last_row(self) -> int:
        """One past its last row."""
        return self.first_row + self.rows


def read_shard(folder: Path, index: int) -> Shard:
    """The commit mark of a shard whose data file has the right size. Raises DataError naming the file."""
    data, mark = data_path(folder, index), mark_path(folder, index)
    found = read_json(mark, {"first_row", "rows", "dim", "sha256", "crc32", "residual", "skipped"})
    shard = Shard(**{**found, "skipped": [Skip(**skip) for skip in found["skipped"]]})
    if not all(shard.first_row <= skip.row < shard.last_row for skip in shard.skipped):
        raise DataError(f"{mark}: skips a row outside {shard.first_row}..{shard.last_row - 1}; {REPAIR}")
    size, expected = data.stat().st_size if data.is_file() else 0, npy_bytes(shard.rows, shard.dim)
    if size != expected:
        raise DataError(f"{data}: {size} bytes, expected {expected}; {REPAIR}")
    return shard


def npy_bytes(rows: int, dim: int) -> int:
    """Size of a .npy file of float16 (rows, dim)."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (rows, dim), "fortran_order": False, "descr": "<f2"})
    return header.tell() + 2 * rows * dim


def data_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:06d}.npy"


def mark_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:06d}.json"


def residual(half: npt.NDArray[np.float16]) -> float:
    """The largest length of the difference between a row of (n, D) and its bfloat16 form: bounds the error of bfloat16
    products."""
    worst = 0.0
    for start in range(0, len(half), ROWS_AT_ONCE):
        single = half[start : start + ROWS_AT_ONCE].astype(np.float32)
        lengths = np.linalg.norm(single - to_bfloat16(single), axis=1)
        worst = max(worst, float(lengths.max()))
    return worst


def to_bfloat16(single: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rounded to the nearest bfloat16, ties to even."""
    bits = single.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).astype(np.uint32).view(np.float32)


def damage(path: Path, shard: Shard) -> str | None:
    """What is wrong with a shard's content, or None."""
    if sha256(path) == shard.sha256:
        return None
    half = np.fromfile(path, np.float16, offset=npy_bytes(shard.rows, shard.dim) - 2 * shard.rows * shard.dim)
    if half.size != shard.rows * shard.dim:
        return f"holds {half.size} numbers instead of {shard.rows * shard.dim}"
    found = crc32_of(half.reshape(shard.rows, shard.dim))
    off = [i for i, (a, b) in enumerate(zip(found, shard.crc32, strict=True)) if a != b]
    if not off:
        return "its header differs from what was written (sha256)"
    first = shard.first_row + off[0] * CHECKED_ROWS
    last = min(first + CHECKED_ROWS, shard.last_row) - 1
    return f"content differs from its sha256, first in rows {first}..{last} ({len(off)} of {len(found)} blocks)"


def read_json(path: Path, keys: set[str]) -> dict[str, Any]:
    """The content that `publish_json` wrote. Raises DataError if it was altered: before the manifest is written nothing
    else protects a mark, and a stopped build resumes by its marks."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {REPAIR}") from error
    if not isinstance(found, dict) or not keys <= found.keys():
        raise DataError(f"{path}: not a feature store's file, it lacks some of {sorted(keys)}; {REPAIR}")
    if found.pop("checksum", None) != checksum(found):
        raise DataError(f"{path}: is not what was written (its checksum does not fit); {REPAIR}")
    return found


def publish_json(path: Path, content: dict[str, Any]) -> None:
    """Publishes the content and a checksum over it, which `read_json` verifies."""
    content = json.loads(json.dumps(content))  # as it will be read
    text = json.dumps(content | {"checksum": checksum(content)}, indent=1)
    publish(path, lambda file: file.write(text.encode()))


def publish(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Atomically replaces `path` by what `write` writes: a kill or a full disk never leaves it in part.

    Since published content stays, a signal that has arrived is raised first.
    """
    look()
    aside = path.with_name(f".{path.name}.{uuid4().hex}")  # several processes may publish the same
    try:
        with open(aside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
