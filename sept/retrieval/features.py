"""The features of one embedded pool: float16 shards in row order, each committed once, checked on open.

Written by the embedding stage, read by the search. A shard is `shard-NNNNNN.npy` plus a `.json` of the same name that
is written last and commits it: its rows, its hash and the images it had to skip travel together.
Shapes: N pool rows, D dim, n rows of one shard or block.
"""

import hashlib
import io
import json
import os
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from sept.errors import ConfigError, DataError, NonFiniteError, StorageError

ROWS_PER_SHARD = 100_000  # 154 MB a shard at 768 dimensions; 1,550 shards for the paper's 155 million images
UNIT_TOLERANCE = 2e-3  # rounding to float16 moves a unit norm by at most 2**-11
READ_WHOLE = 3  # a stretch of rows is read as a whole, if that is at most so many times what is asked of it
CHECKED_ROWS = 8192  # of a shard that share a checksum
SKIPS_SHOWN = 3  # unreadable files named in the error

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Skip:
    """One image that could not be embedded: its pool row, its key there, and why."""

    row: int
    key: str
    reason: str


Encode = Callable[[int, int], tuple[np.ndarray, list[Skip]]]


@dataclass(frozen=True)
class Shard:
    """What the commit mark of a shard says: rows [first_row, first_row + rows) of the pool are in it."""

    first_row: int
    rows: int
    dim: int
    sha256: str
    crc32: list[int]  # of the bytes of each CHECKED_ROWS rows: where a damage is
    skipped: list[Skip]

    @property
    def last_row(self) -> int:
        """One past its last row."""
        return self.first_row + self.rows


def embed(
    folder: Path,
    rows: int,
    encode: Encode,
    max_unreadable: float,
    rows_per_shard: int = ROWS_PER_SHARD,
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Embeds the rows of a pool that `folder` does not hold yet, and returns {rows, embedded, skipped, dim}.

    encode(first, last) gives (last - first, D) float32 or float16 vectors of unit length, all zero where skipped, and
    the skips with their pool rows. It is called once per missing shard: after a kill the same call goes on from there.
    progress is called with the number of rows done. Raises DataError when more than `max_unreadable` of all rows were
    skipped, as soon as that is certain, and when the vectors are not what was asked for; NonFiniteError for NaN or
    infinity; StorageError when the disk refuses.
    """
    for index in missing(folder, rows, rows_per_shard):
        embed_shard(folder, index, rows, encode, max_unreadable, rows_per_shard)
        if progress is not None:
            progress(min((index + 1) * rows_per_shard, rows))
    return conclude(folder, rows, max_unreadable, rows_per_shard)


def missing(folder: Path, rows: int, rows_per_shard: int = ROWS_PER_SHARD) -> list[int]:
    """The shards that `folder` does not hold yet. Raises DataError for a pool without rows."""
    if rows <= 0:
        raise DataError(f"nothing to embed for {folder}: the pool lists no images")
    folder.mkdir(parents=True, exist_ok=True)
    spans = enumerate(range(0, rows, rows_per_shard))
    return [i for i, first in spans if _committed(folder, i, first, min(first + rows_per_shard, rows)) is None]


def embed_shard(
    folder: Path, index: int, rows: int, encode: Encode, max_unreadable: float, rows_per_shard: int = ROWS_PER_SHARD
) -> list[Skip]:
    """Embeds and commits one shard; its skips. Several processes may do so, even the same shard, at a time.

    Before the commit the skips of all shards that are there are counted: a rerun tries this shard again.
    """
    first = index * rows_per_shard
    last = min(first + rows_per_shard, rows)
    vectors, skips = encode(first, last)
    _check_vectors(vectors, skips, first, last)
    if skips:
        check_readable([*_skips_so_far(folder, rows, rows_per_shard), *skips], rows, max_unreadable)
    _commit(folder, index, first, vectors, skips)
    return skips


def _skips_so_far(folder: Path, rows: int, rows_per_shard: int) -> list[Skip]:
    shards = (
        _committed(folder, index, first, min(first + rows_per_shard, rows))
        for index, first in enumerate(range(0, rows, rows_per_shard))
    )
    return [skip for shard in shards if shard is not None for skip in shard.skipped]


def conclude(folder: Path, rows: int, max_unreadable: float, rows_per_shard: int = ROWS_PER_SHARD) -> dict[str, int]:
    """Makes a store of the shards, all of which are there; gives {rows, embedded, skipped, dim}."""
    for left in folder.glob(".shard-*"):  # by a worker that was killed
        left.unlink(missing_ok=True)
    shards = [_read_shard(folder, index) for index in range(len(range(0, rows, rows_per_shard)))]
    skipped = [skip for shard in shards for skip in shard.skipped]
    check_readable(skipped, rows, max_unreadable)
    dims = {shard.dim for shard in shards}
    if len(dims) > 1:
        raise DataError(f"{folder}: its shards have {sorted(dims)} dimensions; delete it and embed the pool again")
    facts = {"rows": rows, "dim": dims.pop(), "shards": len(shards), "skipped": len(skipped)}
    _publish_json(folder / "features.json", {**facts, "rows_per_shard": rows_per_shard})
    return {"rows": rows, "embedded": rows - len(skipped), "skipped": len(skipped), "dim": facts["dim"]}


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
        """Reads the commit marks alone, and raises DataError naming the file unless every row is held exactly once."""
        facts = _read_json(folder / "features.json", {"rows", "dim", "shards", "skipped"})
        shards = tuple(_read_shard(folder, index) for index in range(facts["shards"]))
        expected = 0
        for index, shard in enumerate(shards):
            if shard.first_row != expected or shard.dim != facts["dim"]:
                raise DataError(
                    f"{_mark(folder, index)}: starts at row {shard.first_row} with {shard.dim} dimensions, expected "
                    f"row {expected} with {facts['dim']}; embed the pool again"
                )
            expected = shard.last_row
        skipped = np.array(sorted(skip.row for shard in shards for skip in shard.skipped), dtype=np.int64)
        if (expected, len(skipped)) != (facts["rows"], facts["skipped"]):
            raise DataError(
                f"{folder}/features.json: {facts['rows']} rows of which {facts['skipped']} skipped, but the shards "
                f"hold {expected} and {len(skipped)}; embed the pool again"
            )
        files = tuple(_data(folder, index) for index in range(len(shards)))
        return cls(files, facts["rows"], facts["dim"], skipped, shards)

    @classmethod
    def joined(cls, parts: Sequence["Features"]) -> "Features":
        """The vectors of several pools as those of their union. Raises ConfigError where their dimensions differ."""
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
        """The vectors of the first of every `nth` shards, as a pool of their own: a sample spread over all sources."""
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
        """One of `parts` equal shares of the shards, and its first row here: what one of several machines searches.

        Raises ConfigError when there are fewer shards than parts.
        """
        if parts > len(self.shards):
            raise ConfigError(f"{len(self.shards)} shards cannot be shared by {parts} machines: take fewer")
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
        """Fills (n, D) float16, C-contiguous, with n rows of one shard from row `first`.

        It reads into memory that is there: pages of a map would each be faulted in, and count as this process's own.
        """
        index = bisect_right(self.shards, first, key=lambda shard: shard.first_row) - 1
        path, shard = self.files[index], self.shards[index]
        assert first + len(block) <= shard.last_row, "a block crosses shards"
        self._vectors(index)  # checks the header
        left = block.data.cast("B")
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(_npy_bytes(shard.rows, self.dim) - 2 * (shard.last_row - first) * self.dim)
                while left and (got := file.readinto(left)):
                    left = left[got:]
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it and embed again") from error
        if left:
            raise DataError(f"{path}: ends {len(left)} bytes early; delete it and embed again")

    def take(self, rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(n, D) float32, the vectors of n rows in the order asked for; zeros where skipped. Raises IndexError."""
        return self.take_half(rows).astype(np.float32)

    def take_half(self, rows: npt.ArrayLike) -> npt.NDArray[np.float16]:
        """`take` as stored."""
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.rows:
            raise IndexError(
                f"rows {wanted.min()}..{wanted.max()} asked for, {self.files[0].parent} holds 0..{self.rows - 1}"
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
        """(n, D), ascending rows of one shard; where they are most of a stretch, that is read as a whole."""
        first, last = int(rows[0]), int(rows[-1]) + 1
        if last - first > READ_WHOLE * len(rows):
            return self._vectors(index)[rows - self.shards[index].first_row]
        stretch = np.empty((last - first, self.dim), dtype=np.float16)
        self.read(first, stretch)
        return stretch if len(rows) == last - first else stretch[rows - first]

    def verify(self) -> None:
        """Reads everything and raises DataError naming the first shard whose content is not what was written."""
        for index, shard in enumerate(self.shards):
            damage = _damage(self.files[index], shard)
            if damage is not None:
                raise DataError(f"{self.files[index]}: {damage}; delete it (`repair` does) and embed again")

    def _vectors(self, index: int) -> np.ndarray:
        """A shard's vectors, mapped for as long as they are held: what was read of a kept map is the process's."""
        path, shard = self.files[index], self.shards[index]
        try:
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it and embed again") from error
        if vectors.shape != (shard.rows, shard.dim) or vectors.dtype != np.float16:
            raise DataError(f"{path}: {vectors.dtype} {vectors.shape}, expected float16 {(shard.rows, shard.dim)}")
        return vectors


def repair(folder: Path) -> list[Path]:
    """Deletes the shards of a store that are damaged, and names them: the next `embed` computes these and no others."""
    deleted = []
    for mark in sorted(folder.glob("shard-*.json")):
        data = mark.with_suffix(".npy")
        try:
            damaged = _damage(data, _read_shard(folder, int(mark.stem.removeprefix("shard-")))) is not None
        except DataError:
            damaged = True
        if damaged:
            mark.unlink()  # first: data without it is not committed
            data.unlink(missing_ok=True)
            deleted.append(data)
    return deleted


def _check_vectors(vectors: np.ndarray, skips: list[Skip], first: int, last: int) -> None:
    """Conservation (listed = embedded + skipped), finiteness, unit length; skipped rows are zero."""
    if vectors.ndim != 2 or len(vectors) != last - first:
        raise DataError(f"rows {first}..{last - 1} were asked for, encode gave an array of shape {vectors.shape}")
    rows = np.array([skip.row for skip in skips], dtype=np.int64) - first
    if len(np.unique(rows)) != len(rows) or ((rows < 0) | (rows >= last - first)).any():
        raise DataError(f"skips of rows {first}..{last - 1} name a row twice or one outside: {sorted(rows + first)}")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float32))
    if not np.isfinite(norms).all():
        raise NonFiniteError(f"the vector of pool row {first + int(np.argmin(np.isfinite(norms)))} is not finite")
    expected = np.ones(len(vectors), dtype=np.float32)
    expected[rows] = 0
    off = np.abs(norms - expected) > np.where(expected > 0, UNIT_TOLERANCE, 0)
    if off.any():
        row = int(np.argmax(off))
        raise DataError(f"the vector of pool row {first + row} has length {norms[row]:.4g}, expected {expected[row]:g}")


def check_readable(skips: list[Skip], rows: int, max_unreadable: float) -> None:
    """Raises DataError, naming some, when more than `max_unreadable` of the pool's `rows` images were skipped."""
    if len(skips) <= max_unreadable * rows:
        return
    named = "; ".join(f"{skip.key!r} ({skip.reason})" for skip in skips[:SKIPS_SHOWN])
    raise DataError(
        f"{len(skips)} of the pool's {rows} images are unreadable, more than pool.max_unreadable={max_unreadable:g}: "
        f"{named}{'; ...' if len(skips) > SKIPS_SHOWN else ''}. Repair or remove them, or raise that share"
    )


def _commit(folder: Path, index: int, first: int, vectors: np.ndarray, skips: list[Skip]) -> Shard:
    data = _data(folder, index)
    half = np.ascontiguousarray(vectors, dtype=np.float16)
    publish(data, lambda file: np.save(file, half, allow_pickle=False))
    ordered = sorted(skips, key=lambda skip: skip.row)
    shard = Shard(first, len(half), half.shape[1], _sha256(data), _checksums(half), ordered)
    _publish_json(_mark(folder, index), asdict(shard))
    return shard


def _committed(folder: Path, index: int, first: int, last: int) -> Shard | None:
    """The shard if it is complete and holds just these rows; else it is to be made again."""
    try:
        shard = _read_shard(folder, index)
    except DataError:
        return None
    return shard if (shard.first_row, shard.last_row) == (first, last) else None


def _read_shard(folder: Path, index: int) -> Shard:
    """The commit mark of a shard whose data file has the right size. Raises DataError naming the file."""
    data, mark = _data(folder, index), _mark(folder, index)
    found = _read_json(mark, {"first_row", "rows", "dim", "sha256", "crc32", "skipped"})
    shard = Shard(**{**found, "skipped": [Skip(**skip) for skip in found["skipped"]]})
    if not all(shard.first_row <= skip.row < shard.last_row for skip in shard.skipped):
        raise DataError(f"{mark}: skips a row outside {shard.first_row}..{shard.last_row - 1}; embed the pool again")
    size, expected = data.stat().st_size if data.is_file() else 0, _npy_bytes(shard.rows, shard.dim)
    if size != expected:
        raise DataError(f"{data}: {size} bytes, expected {expected}; delete it and embed the pool again")
    return shard


def _npy_bytes(rows: int, dim: int) -> int:
    """Size of a .npy file of float16 (rows, dim)."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (rows, dim), "fortran_order": False, "descr": "<f2"})
    return header.tell() + 2 * rows * dim


def _data(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:06d}.npy"


def _mark(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:06d}.json"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksums(half: npt.NDArray[np.float16]) -> list[int]:
    return [
        zlib.crc32(half[start : start + CHECKED_ROWS].data.cast("B")) for start in range(0, len(half), CHECKED_ROWS)
    ]


def _damage(path: Path, shard: Shard) -> str | None:
    """What is wrong with a shard's content, or None."""
    if _sha256(path) == shard.sha256:
        return None
    half = np.fromfile(path, np.float16, offset=_npy_bytes(shard.rows, shard.dim) - 2 * shard.rows * shard.dim)
    if half.size != shard.rows * shard.dim:
        return f"holds {half.size} numbers instead of {shard.rows * shard.dim}"
    found = _checksums(half.reshape(shard.rows, shard.dim))
    off = [i for i, (a, b) in enumerate(zip(found, shard.crc32, strict=True)) if a != b]
    if not off:
        return "its header differs from what was written (sha256)"
    first = shard.first_row + off[0] * CHECKED_ROWS
    last = min(first + CHECKED_ROWS, shard.last_row) - 1
    return f"content differs from its sha256, first in rows {first}..{last} ({len(off)} of {len(found)} blocks)"


def _read_json(path: Path, keys: set[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); embed the pool again") from error
    if not isinstance(found, dict) or not keys <= found.keys():
        raise DataError(f"{path}: not a feature store's file, it lacks some of {sorted(keys)}; embed the pool again")
    return found


def _publish_json(path: Path, content: dict[str, Any]) -> None:
    publish(path, lambda file: file.write(json.dumps(content, indent=1).encode()))


def publish(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Makes `path` hold what `write` writes, or leaves it as it was: a kill or a full disk never tears it."""
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
