"""The embedding of a pool, shard by shard: each is committed once, whichever process makes it and whatever is killed.

Writes what `sept.retrieval.features` reads.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sept.errors import DataError, NonFiniteError
from sept.retrieval.shards import (
    REPAIR,
    Shard,
    Skip,
    crc32_of,
    data_path,
    mark_path,
    publish,
    publish_json,
    read_shard,
    residual,
)
from sept.store.disk import sha256

ROWS_PER_SHARD = 100_000  # 154 MB a shard at 768 dimensions; 1,550 shards for the paper's 155 million images
UNIT_TOLERANCE = 2e-3  # rounding to float16 moves a unit norm by at most 2**-11
SKIPS_SHOWN = 3  # unreadable files named in the error
COUNT_AGAIN = 0.1  # of the skips that are still allowed: after so many more, those of other processes are counted again

Encode = Callable[[int, int], tuple[np.ndarray, list[Skip]]]


def embed(
    folder: Path,
    rows: int,
    encode: Encode,
    max_unreadable: float,
    rows_per_shard: int = ROWS_PER_SHARD,
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Embeds the rows of a pool that `folder` lacks, and returns {rows, embedded, skipped, dim}.

    encode(first, last) gives (last - first, D) float32 or float16 vectors of unit length, all zero where skipped, and
    the skips with their pool rows. It is called once per missing shard: after a kill the same call resumes.
    progress is called with the number of rows done. Raises DataError when more than `max_unreadable` of all rows were
    skipped, as soon as that is certain, and for vectors of a wrong shape or length; NonFiniteError for NaN or infinity;
    StorageError for disk errors.
    """
    allowed = Allowed(folder, rows, max_unreadable, rows_per_shard)
    for index in missing(folder, rows, rows_per_shard):
        embed_shard(index, encode, allowed)
        if progress is not None:
            progress(min((index + 1) * rows_per_shard, rows))
    return conclude(folder, rows, max_unreadable, rows_per_shard)


def missing(folder: Path, rows: int, rows_per_shard: int = ROWS_PER_SHARD) -> list[int]:
    """The shards that `folder` lacks. Raises DataError for a pool without rows."""
    if rows <= 0:
        raise DataError(f"nothing to embed for {folder}: the pool lists no images")
    folder.mkdir(parents=True, exist_ok=True)
    spans = enumerate(range(0, rows, rows_per_shard))
    return [i for i, first in spans if not _whole(folder, i, first, min(first + rows_per_shard, rows))]


def _whole(folder: Path, index: int, first: int, last: int) -> bool:
    """Whether a shard is intact, by its content: one damaged after it was committed is made again."""
    shard = _committed(folder, index, first, last)
    return shard is not None and sha256(data_path(folder, index)) == shard.sha256


class Allowed:
    """How many images of a pool may be unreadable, and how many have been: of the shards in `folder`, whoever made
    them, and of one process exactly. Reading the other shards at every skip would grow with their square."""

    def __init__(self, folder: Path, rows: int, max_unreadable: float, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        self.folder, self.rows, self.rows_per_shard, self._share = folder, rows, rows_per_shard, max_unreadable
        self._counted: int | None = None  # in all shards, the last time
        self._since = 0  # here since then

    def check(self, index: int, skips: list[Skip]) -> None:
        """Adds those of a shard that is not committed yet; raises DataError once they are too many."""
        self._since += len(skips)
        if self._counted is None or self._since > COUNT_AGAIN * (self._share * self.rows - self._counted):
            every = [*_skips_of_others(self.folder, index, self.rows, self.rows_per_shard), *skips]
            check_readable(every, self.rows, self._share)
            self._counted, self._since = len(every), 0


def embed_shard(index: int, encode: Encode, allowed: Allowed) -> list[Skip]:
    """Embeds and commits one shard; returns its skips. Several processes may do so at once, even for the same shard.

    Before the commit its skips are counted: a rerun tries this shard again.
    """
    first = index * allowed.rows_per_shard
    last = min(first + allowed.rows_per_shard, allowed.rows)
    vectors, skips = encode(first, last)
    _check_vectors(vectors, skips, first, last)
    if skips:
        allowed.check(index, skips)
    _commit(allowed.folder, index, first, vectors, skips)
    return skips


def _skips_of_others(folder: Path, index: int, rows: int, rows_per_shard: int) -> list[Skip]:
    """The skips of the existing shards other than `index`, which may exist damaged."""
    shards = (
        _committed(folder, other, first, min(first + rows_per_shard, rows))
        for other, first in enumerate(range(0, rows, rows_per_shard))
        if other != index
    )
    return [skip for shard in shards if shard is not None for skip in shard.skipped]


def conclude(folder: Path, rows: int, max_unreadable: float, rows_per_shard: int = ROWS_PER_SHARD) -> dict[str, int]:
    """Completes the feature store when all shards exist; returns {rows, embedded, skipped, dim}."""
    for left in folder.glob(".shard-*"):  # by a worker that was killed
        left.unlink(missing_ok=True)
    shards = [read_shard(folder, index) for index in range(len(range(0, rows, rows_per_shard)))]
    skipped = [skip for shard in shards for skip in shard.skipped]
    check_readable(skipped, rows, max_unreadable)
    dims = {shard.dim for shard in shards}
    if len(dims) > 1:
        raise DataError(f"{folder}: its shards have {sorted(dims)} dimensions; {REPAIR}")
    facts = {"rows": rows, "dim": dims.pop(), "shards": len(shards), "skipped": len(skipped)}
    publish_json(folder / "features.json", {**facts, "rows_per_shard": rows_per_shard})
    return {"rows": rows, "embedded": rows - len(skipped), "skipped": len(skipped), "dim": facts["dim"]}


def _check_vectors(vectors: np.ndarray, skips: list[Skip], first: int, last: int) -> None:
    """Conservation (listed = embedded + skipped), finiteness, unit length; skipped rows are zero."""
    if vectors.ndim != 2 or len(vectors) != last - first:
        raise DataError(f"rows {first}..{last - 1} were requested, encode returned an array of shape {vectors.shape}")
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
        f"{named}{' and others' if len(skips) > SKIPS_SHOWN else ''}; repair or remove them, or raise that share"
    )


def _commit(folder: Path, index: int, first: int, vectors: np.ndarray, skips: list[Skip]) -> Shard:
    data = data_path(folder, index)
    half = np.ascontiguousarray(vectors, dtype=np.float16)
    publish(data, lambda file: np.save(file, half, allow_pickle=False))
    ordered = sorted(skips, key=lambda skip: skip.row)
    shard = Shard(first, len(half), half.shape[1], sha256(data), crc32_of(half), residual(half), ordered)
    publish_json(mark_path(folder, index), asdict(shard))
    return shard


def _committed(folder: Path, index: int, first: int, last: int) -> Shard | None:
    """The shard if it is complete and holds exactly these rows; else None, and it is made again."""
    try:
        shard = read_shard(folder, index)
    except DataError:
        return None
    return shard if (shard.first_row, shard.last_row) == (first, last) else None
