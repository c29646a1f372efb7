"""The pool is a table: one manifest row per image, read by row number; what follows speaks of images by that number."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sept.data.images import ImageError, Pixels, ample, decode
from sept.data.names import is_image
from sept.data.sources.files import Entry, Root
from sept.data.sources.reader import Reader
from sept.errors import ConfigError, DataError, reason

MANIFEST = "pool.parquet"
ROWS_AT_ONCE = 1 << 17
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("source", pa.string()),
        ("key", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)


def write_manifest(folder: Path, entries: Iterable[Entry]) -> dict[str, Any]:
    """Writes `entries` in their order as `pool.parquet` into `folder`, an unfinished artefact; gives its facts.

    The facts: {"rows": number of images, "sources": {source: number of its images}}. Streams: memory holds
    `ROWS_AT_ONCE` rows. Raises DataError where there are none.
    """
    counts: Counter[str] = Counter()
    remaining = iter(entries)
    with pq.ParquetWriter(folder / MANIFEST, SCHEMA) as writer:
        while block := list(islice(remaining, ROWS_AT_ONCE)):
            first = counts.total()
            rows = np.arange(first, first + len(block), dtype=np.int64)
            writer.write_table(pa.table([rows, *zip(*block, strict=True)], schema=SCHEMA))
            counts.update(entry.source for entry in block)
    if not counts:
        raise DataError("the pool is empty: no source holds an image")
    return {"rows": counts.total(), "sources": dict(counts)}


class Pool:
    """The images of a manifest, by row. Columns are loaded when first used; picklable, each worker opens its own."""

    def __init__(self, manifest: Path, roots: Mapping[str, Root]) -> None:
        self._manifest = manifest
        self._roots = dict(roots)
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._readers = {source: Reader(root) for source, root in roots.items()}
        self._rows: int = pq.read_metadata(manifest).num_rows

    @classmethod
    def open(cls, manifest_folder: Path, roots: Mapping[str, Root]) -> "Pool":
        """The pool of `manifest_folder`, with the folder or URL each source is at now: a moved one keeps its rows.

        Raises ConfigError where `roots` and the manifest name different sources, DataError where a folder is missing or
        the manifest damaged.
        """
        manifest = manifest_folder / MANIFEST
        try:
            pool = cls(manifest, roots)
            sources = set(pc.unique(pool._column("source")).to_pylist())
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{manifest}: no readable pool manifest ({reason(error)})") from error
        if sources != set(roots):
            raise ConfigError(f"{manifest} has the sources {sorted(sources)}, but roots are given for {sorted(roots)}")
        for source, root in roots.items():
            if isinstance(root, Path) and not root.is_dir():
                raise DataError(f"{root}: no such folder, given as the root of pool source {source!r}")
        return pool

    def __len__(self) -> int:
        return self._rows

    @property
    def sources(self) -> list[str]:
        """Names of its sources."""
        return sorted(self._roots)

    def key(self, row: int) -> str:
        """The image's name for people."""
        return self._value("key", row)

    def source(self, row: int) -> str:
        """The source that the image is from."""
        return str(self._value("source", row))

    def read(self, row: int) -> bytes:
        """The image file's bytes. Raises DataError where its shard is gone or shorter than listed."""
        reader = self._readers[self._value("source", row)]
        return reader.read(self._value("shard", row), self._value("offset", row), self._value("size", row))

    def entry(self, row: int) -> Entry:
        """The image as it was listed."""
        return Entry(*(self._value(column, row) for column in Entry._fields))

    def path(self, row: int) -> Path | None:
        """The image's own file; None of one in an archive or behind a URL."""
        root, shard = self._roots[self._value("source", row)], self._value("shard", row)
        return root / shard if isinstance(root, Path) and is_image(shard) else None

    def image(self, row: int, side: int | None = None) -> Pixels:
        """uint8 (H, W, 3), RGB; for a resize to `side` next, a large JPEG at reduced scale.

        Raises ImageError, naming the image, for one that cannot be used.
        """
        data = self.read(row)
        try:
            return decode(data, side and ample(side))
        except ImageError as error:
            raise ImageError(f"{self.key(row)}: {error}") from error

    def rows_of(self, source: str) -> NDArray[np.int64]:
        """Rows of one source, ascending. Raises ConfigError for a source the pool does not have."""
        if source not in self._roots:
            raise ConfigError(f"the pool has no source {source!r}; it has {sorted(self._roots)}")
        return np.flatnonzero(pc.equal(self._column("source"), source).to_numpy()).astype(np.int64)

    def _value(self, column: str, row: int) -> Any:
        if not 0 <= row < self._rows:  # -1 would be the last row, in silence
            raise IndexError(f"row {row} of a pool of {self._rows:,} images")
        return self._column(column)[int(row)].as_py()

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self._columns:
            table = pq.read_table(self._manifest, columns=[name], read_dictionary=["source", "shard"])
            self._columns[name] = table[name]
        return self._columns[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return Pool, (self._manifest, self._roots)


class ConcatPool:
    """Pools one after the other: its rows are those of the first, then those of the next. Picklable.

    With several, a key begins with the name of the pool it is in. A pool added at the end moves no row of the others.
    """

    def __init__(self, parts: Mapping[str, Pool]) -> None:
        self.parts = dict(parts)
        self._pools = list(self.parts.values())
        self._starts = np.cumsum([0, *(len(pool) for pool in self._pools)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def key(self, row: int) -> str:
        """The image's name for people."""
        part, inside = self._place(row)
        key = self._pools[part].key(inside)
        return key if len(self._pools) == 1 else f"{list(self.parts)[part]}/{key}"

    def read(self, row: int) -> bytes:
        """The image file's bytes, of `Pool.read`."""
        part, inside = self._place(row)
        return self._pools[part].read(inside)

    def entry(self, row: int) -> tuple[int, Entry]:
        """Which of the pools it is in, and `Pool.entry`."""
        part, inside = self._place(row)
        return part, self._pools[part].entry(inside)

    def path(self, row: int) -> Path | None:
        """Of `Pool.path`."""
        part, inside = self._place(row)
        return self._pools[part].path(inside)

    def image(self, row: int, side: int | None = None) -> Pixels:
        """uint8 (H, W, 3), RGB, of `Pool.image`."""
        part, inside = self._place(row)
        return self._pools[part].image(inside, side)

    def rows_of(self, source: str) -> NDArray[np.int64]:
        """Rows of the pool, or of the source within the pools, of this name. Raises ConfigError where there is none."""
        if source in self.parts:
            part = list(self.parts).index(source)
            return np.arange(self._starts[part], self._starts[part + 1])
        found = [
            pool.rows_of(source) + start
            for pool, start in zip(self._pools, self._starts[:-1], strict=True)
            if source in pool.sources
        ]
        if not found:
            known = [*self.parts, *(name for pool in self._pools for name in pool.sources)]
            raise ConfigError(f"the pool has no source {source!r}; it has {sorted(set(known))}")
        return np.concatenate(found)

    def source(self, row: int) -> str:
        """The pool of the union that a row is in; of one pool alone, the source within it."""
        part, inside = self._place(row)
        return self._pools[part].source(inside) if len(self._pools) == 1 else list(self.parts)[part]

    def counts(self) -> dict[str, int]:
        """Images of each `source`."""
        if len(self._pools) == 1:
            return {name: len(self.rows_of(name)) for name in self._pools[0].sources}
        return {name: len(pool) for name, pool in self.parts.items()}

    def _place(self, row: int) -> tuple[int, int]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a pool of {len(self):,} images")
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return part, row - int(self._starts[part])
