"""An int8 copy of a feature store: half the bytes to scan, with a known error bound.

Integers from -127 to 127, and a scale for every few of a row, so that an outlier affects only its neighbours.
Shards follow those of the store; each has a mark, written last, that names the store's shard by its hash.
Shapes: N pool rows, D dim, n rows of a shard or block, G scales of a row.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sept.errors import DataError
from sept.retrieval.features import Features
from sept.retrieval.shards import ROWS_AT_ONCE, Shard, Sums, crc32_of, publish, publish_json, read_json, to_bfloat16

LARGEST = 127
SHARING = 32  # maximum number of components that share a scale
WHOLE, SCALE = np.dtype("<i1"), np.dtype("<f2")
AGAIN = "`python -m sept.store repair`, and the next run builds the copy again"
MARKED = {"of", "residual", "whole", "scales"}  # fields of a shard's mark

Int8Array = npt.NDArray[np.int8]
Float16Array = npt.NDArray[np.float16]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Compact:
    """The copy of `features`. residual: the largest length of the difference between a row and its int8 form. whole,
    scales: the files of each shard."""

    features: Features
    residual: float
    whole: tuple[Sums, ...]
    scales: tuple[Sums, ...]

    @classmethod
    def open(cls, folder: Path, features: Features) -> "Compact":
        """Reads only the marks. Raises DataError if a shard is missing, truncated, or a copy of other vectors."""
        worst, files = 0.0, []
        for index, shard in enumerate(features.shards):
            mark = read_json(_mark(folder, index), MARKED)
            if mark["of"] != shard.sha256:
                raise DataError(f"{_mark(folder, index)}: of other vectors than {features.files[index]}; {AGAIN}")
            files.append(_sums(folder, index, shard, mark))
            worst = max(worst, mark["residual"])
        return cls(features, worst, *map(tuple, zip(*files, strict=True)))

    def read(self, first: int, whole: Int8Array, scales: Float16Array) -> None:
        """Fills (n, D) int8 and (n, G) float16 with n rows of one shard from row `first`. DataError for damage."""
        index = bisect_right(self.features.shards, first, key=lambda shard: shard.first_row) - 1
        row = first - self.features.shards[index].first_row
        self.whole[index].read(row, whole)
        self.scales[index].read(row, scales)


def build(folder: Path, features: Features, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Writes the copies of the shards that `folder` lacks; returns {rows, residual}."""
    folder.mkdir(parents=True, exist_ok=True)
    worst = 0.0
    for index, shard in enumerate(features.shards):
        if not _is_there(folder, index, shard):
            publish_json(_mark(folder, index), {"of": shard.sha256, **_copy(folder, index, features)})
        worst = max(worst, read_json(_mark(folder, index), {"residual"})["residual"])
        if progress is not None:
            progress(shard.last_row)
    return {"rows": features.rows, "residual": worst}


def _is_there(folder: Path, index: int, shard: Shard) -> bool:
    """Whether a stopped build has already written the copy of a shard, intact."""
    try:
        mark = read_json(_mark(folder, index), MARKED)
        for sums in _sums(folder, index, shard, mark):
            sums.check(np.arange(shard.rows))
    except DataError:
        return False
    return bool(mark["of"] == shard.sha256)


def _sums(folder: Path, index: int, shard: Shard, mark: dict[str, Any]) -> tuple[Sums, Sums]:
    """Of a shard's whole numbers and scales. Raises DataError where a file is missing or cut."""
    widths = {_whole: shard.dim, _scales: scales_of(shard.dim) * SCALE.itemsize}
    sums = []
    for (named, width), crc32 in zip(widths.items(), (mark["whole"], mark["scales"]), strict=True):
        path = named(folder, index)
        found = path.stat().st_size if path.is_file() else 0
        if found != shard.rows * width:
            raise DataError(f"{path}: {found} bytes, expected {shard.rows * width}; {AGAIN}")
        sums.append(Sums(path, 0, shard.rows, width, crc32, AGAIN))
    return sums[0], sums[1]


def _copy(folder: Path, index: int, features: Features) -> dict[str, Any]:
    """Copies a shard; what its mark says: the residual, and check sums of both files."""
    shard, worst = features.shards[index], 0.0
    whole = np.empty((shard.rows, shard.dim), dtype=WHOLE)
    scales = np.empty((shard.rows, scales_of(shard.dim)), dtype=SCALE)
    for start in range(0, shard.rows, ROWS_AT_ONCE):
        part = slice(start, min(start + ROWS_AT_ONCE, shard.rows))
        half = np.empty((part.stop - start, shard.dim), dtype=np.float16)
        features.read(shard.first_row + start, half)
        whole[part], scales[part], residual = _rounded(half.astype(np.float32))
        worst = max(worst, residual)
    publish(_whole(folder, index), lambda file: file.write(whole.data.cast("B")))
    publish(_scales(folder, index), lambda file: file.write(scales.data.cast("B")))
    return {"residual": worst, "whole": crc32_of(whole), "scales": crc32_of(scales)}


def _rounded(single: Float32Array) -> tuple[Int8Array, Float16Array, float]:
    """(n, D) float32 as integers (n, D), scales (n, G), and the largest residual, in float32 or bfloat16."""
    n, dim = single.shape
    parts = single.reshape(n, scales_of(dim), -1)
    scales = (np.abs(parts).max(axis=2) / LARGEST).astype(SCALE)
    used = scales.astype(np.float32)[..., None]
    whole = np.rint(parts / np.where(used > 0, used, 1)).clip(-LARGEST, LARGEST)
    copy = (whole * used).reshape(n, dim)
    lengths = [np.linalg.norm(single - each, axis=1).max() for each in (copy, to_bfloat16(copy))]
    return whole.reshape(n, dim).astype(WHOLE), scales, float(max(lengths))


def scales_of(dim: int) -> int:
    """Number of scales per row of `dim` components: the fewest that divide it evenly."""
    return next(count for count in range(-(-dim // SHARING), dim + 1) if dim % count == 0)


def _whole(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:06d}.int8"


def _scales(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:06d}.scales"


def _mark(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:06d}.json"
