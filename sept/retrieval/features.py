"""The features of one embedded pool: float16 shards in row order, checked while they are read.

Written by `sept.retrieval.embedding`, read by the search. Shapes: N pool rows, D dim, n rows of one shard or block.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sept.errors import ConfigError, DataError
from sept.retrieval.shards import REPAIR, Shard, Sums, damage, data_path, mark_path, npy_bytes, read_json, read_shard

READ_WHOLE = 3  # a range of rows is read as a whole if it is at most this many times the requested rows

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """The vectors of a pool, read through memory maps. `skipped` are the rows without a vector, ascending."""

    files: tuple[Path, ...]  # of the shards
    rows: int
    dim: int
    skipped: IntArray
    shards: tuple[Shard, ...]

    @classmethod
    def open(cls, folder: Path) -> "Features":
        """Reads only the commit marks; raises DataError naming the file unless every row is held exactly once."""
        facts = read_json(folder / "features.json", {"rows", "dim", "shards", "skipped"})
        shards = tuple(read_shard(folder, index) for index in range(facts["shards"]))
        expected = 0
        for index, shard in enumerate(shards):
            if shard.first_row != expected or shard.dim != facts["dim"]:
                raise DataError(
                    f"{mark_path(folder, index)}: starts at row {shard.first_row} with {shard.dim} dimensions, "
                    f"expected row {expected} with {facts['dim']}; {REPAIR}"
                )
            expected = shard.last_row
        skipped = np.array(sorted(skip.row for shard in shards for skip in shard.skipped), dtype=np.int64)
        if (expected, len(skipped)) != (facts["rows"], facts["skipped"]):
            raise DataError(
                f"{folder}/features.json: {facts['rows']} rows of which {facts['skipped']} skipped, but the shards "
                f"hold {expected} and {len(skipped)}; {REPAIR}"
            )
        files = tuple(data_path(folder, index) for index in range(len(shards)))
        return cls(files, facts["rows"], facts["dim"], skipped, shards)

    @classmethod
    def concatenate(cls, parts: Sequence["Features"]) -> "Features":
        """The vectors of several pools as those of their union. Raises ConfigError if their dimensions differ."""
        if len({part.dim for part in parts}) > 1:
            raise ConfigError(f"vectors of {sorted({part.dim for part in parts})} dimensions cannot be one pool")
        starts = np.cumsum([0, *(part.rows for part in parts)]).tolist()
        moved = [
            replace(
                shard,
                first_row=shard.first_row + start,
                skipped=[replace(skip, row=skip.row + start) for skip in shard.skipped],
            )
            for part, start in zip(parts, starts, strict=False)
            for shard in part.shards
        ]
        skipped = np.concatenate([part.skipped + start for part, start in zip(parts, starts, strict=False)])
        files = tuple(file for part in parts for file in part.files)
        return cls(files, starts[-1], parts[0].dim, skipped, tuple(moved))

    def every(self, nth: int) -> "Features":
        """The vectors of the first of every `nth` shards, as a separate pool: a sample spread over all sources."""
        kept = range(0, len(self.shards), nth)
        starts = np.cumsum([0, *(self.shards[i].rows for i in kept)]).tolist()
        moved, skipped = [], []
        for i, start in zip(kept, starts, strict=False):
            shard = self.shards[i]
            by = start - shard.first_row
            moved.append(
                replace(shard, first_row=start, skipped=[replace(skip, row=skip.row + by) for skip in shard.skipped])
            )
            begin, end = np.searchsorted(self.skipped, (shard.first_row, shard.last_row))
            skipped.append(self.skipped[begin:end] + by)
        files = tuple(self.files[i] for i in kept)
        return Features(files, starts[-1], self.dim, np.concatenate(skipped), tuple(moved))

    def part(self, index: int, parts: int) -> tuple[int, "Features"]:
        """One of `parts` equal shares of the shards, and its first row: for search on several machines.

        Raises ConfigError when there are fewer shards than parts.
        """
        if parts > len(self.shards):
            raise ConfigError(f"{len(self.shards)} shards cannot be split over {parts} machines: use fewer")
        begin, end = (len(self.shards) * i // parts for i in (index, index + 1))
        first, last = self.shards[begin].first_row, self.shards[end - 1].last_row
        moved = [
            replace(
                shard,
                first_row=shard.first_row - first,
                skipped=[replace(skip, row=skip.row - first) for skip in shard.skipped],
            )
            for shard in self.shards[begin:end]
        ]
        skipped = self.skipped[(self.skipped >= first) & (self.skipped < last)] - first
        return first, Features(self.files[begin:end], last - first, self.dim, skipped, tuple(moved))

    @property
    def residual(self) -> float:
        """The largest length of the difference between a row and its bfloat16 form."""
        return max(shard.residual for shard in self.shards)

    @property
    def embedded(self) -> int:
        """How many rows have a vector."""
        return self.rows - len(self.skipped)

    def places(self, max_rows: int) -> list[tuple[int, int]]:
        """All rows in order, as (first row, rows <= max_rows) of blocks that never cross shards."""
        return [
            (shard.first_row + start, min(max_rows, shard.rows - start))
            for shard in self.shards
            for start in range(0, shard.rows, max_rows)
        ]

    def blocks(self, max_rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in order, as (first row, (n, D) float16) with n <= max_rows; a block never crosses shards."""
        for first, rows in self.places(max_rows):
            block = np.empty((rows, self.dim), dtype=np.float16)
            self.read(first, block)
            yield first, block

    def read(self, first: int, block: np.ndarray) -> None:
        """Fills (n, D) float16, C-contiguous, with n rows of one shard from row `first`. DataError for damage."""
        index = bisect_right(self.shards, first, key=lambda shard: shard.first_row) - 1
        shard = self.shards[index]
        assert first + len(block) <= shard.last_row, "a block crosses shards"
        self._vectors(index)  # checks the header
        self._sums[index].read(first - shard.first_row, block)

    def take(self, rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(n, D) float32, the vectors of n rows in the requested order; zeros for skipped ones. Raises IndexError."""
        return self.take_half(rows).astype(np.float32)

    def take_half(self, rows: npt.ArrayLike) -> npt.NDArray[np.float16]:
        """`take` as stored."""
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.rows:
            raise IndexError(
                f"rows {wanted.min()}..{wanted.max()} requested, {self.files[0].parent} holds 0..{self.rows - 1}"
            )
        taken = np.empty((len(wanted), self.dim), dtype=np.float16)
        order = np.argsort(wanted, kind="stable")  # the disk is read forwards
        ordered = wanted[order]
        edges = np.searchsorted(ordered, [shard.first_row for shard in self.shards] + [self.rows])
        for index in np.flatnonzero(np.diff(edges)):
            here = slice(edges[index], edges[index + 1])
            taken[order[here]] = self._gather(int(index), ordered[here])
        return taken

    def _gather(self, index: int, rows: IntArray) -> npt.NDArray[np.float16]:
        """(n, D), ascending rows of one shard; dense ranges are read as a whole."""
        first, last = int(rows[0]), int(rows[-1]) + 1
        if last - first > READ_WHOLE * len(rows):
            inside = rows - self.shards[index].first_row
            self._sums[index].check(inside)
            return self._vectors(index)[inside]
        stretch = np.empty((last - first, self.dim), dtype=np.float16)
        self.read(first, stretch)
        return stretch if len(rows) == last - first else stretch[rows - first]

    def verify(self) -> None:
        """Reads everything and raises DataError naming the first shard whose content is not what was written."""
        for index, shard in enumerate(self.shards):
            found = damage(self.files[index], shard)
            if found is not None:
                raise DataError(f"{self.files[index]}: {found}; {REPAIR}")

    @cached_property
    def _sums(self) -> list[Sums]:
        """Of each shard's vectors, which end its file."""
        return [
            Sums(
                path,
                npy_bytes(shard.rows, shard.dim) - 2 * shard.rows * shard.dim,
                shard.rows,
                2 * shard.dim,
                shard.crc32,
                REPAIR,
            )
            for path, shard in zip(self.files, self.shards, strict=True)
        ]

    def _vectors(self, index: int) -> np.ndarray:
        """A shard's vectors, mapped only while in use: pages read through a kept map would count as the process's
        memory."""
        path, shard = self.files[index], self.shards[index]
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}); {REPAIR}") from error
        if vectors.shape != (shard.rows, shard.dim) or vectors.dtype != np.float16:
            raise DataError(f"{path}: {vectors.dtype} {vectors.shape}, expected float16 {(shard.rows, shard.dim)}")
        return vectors
