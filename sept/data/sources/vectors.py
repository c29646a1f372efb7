"""Vectors that were made elsewhere, with the name of the image behind each.

FILE.npy: an array (N, D) of floats, and beside it FILE.ids.txt with N lines, a name each, in the order of the rows.
FILE.parquet: a column `id` with names, and a column `vector` with lists of D floats.
A name may be the path of the image, absolute or relative to the file's folder; it is not looked at before it is needed.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sept.data.sources import lists
from sept.data.sources.digest import digest_list
from sept.data.sources.files import UNKNOWN_SIZE, Entry, Root
from sept.errors import DataError, reason

IDS = ".ids.txt"
ID, VECTOR = "id", "vector"
ROWS_AT_ONCE = 8192
COUNTED_BYTES = 1 << 24
NAME_CHARS = 200  # of a name in a message
EXPECTED = f"FILE.npy (N, D) of floats with FILE{IDS} beside it, a name a line, or FILE.parquet of {ID} and {VECTOR}"


class RowGroup(NamedTuple):
    """The names of one row group of the parquet file `path`."""

    path: Path
    number: int


class VectorFile:
    """N vectors of D numbers in a file, read in order. `rows` and `dim` are those of its header."""

    path: Path
    rows: int
    dim: int

    def read(self, first: int, last: int) -> Iterator[np.ndarray]:
        """Rows first to last - 1 as blocks (n, D) of floats, of ROWS_AT_ONCE at most. Raises DataError."""
        raise NotImplementedError

    def parts(self) -> list[Any]:
        """What names are listed by."""
        raise NotImplementedError

    def identify(self) -> str:
        """A digest of vectors and names. Raises DataError where there are not as many of them."""
        raise NotImplementedError

    @property
    def listed(self) -> Path:
        """The file that holds the names."""
        return self.path

    def names(self) -> Iterator[str]:
        """Of the rows, in their order."""
        for part in self.parts():
            yield from names_of(part)

    def require_names(self, count: int) -> None:
        """DataError where there are not as many names as vectors: of the rows of a text file, blank ones are none."""
        if count != self.rows:
            with open(self.listed, "rb") as file:
                blank = next((number for number, line in enumerate(file, start=1) if not line.strip()), 0)
            raise DataError(
                f"{self.listed}, line {blank:,}: is blank, where the name of a vector of {self.path.name} has to be"
            )

    def told(self, row: int) -> str:
        """A row in words: by its number and, where every row has one, by its name."""
        names, name = 0, ""
        with suppress(DataError, OSError):  # of the names, while something else is told
            for names, each in enumerate(self.names(), start=1):
                name = each if names == row + 1 else name
        return f"row {row:,} ({name[:NAME_CHARS]!r})" if names == self.rows else f"row {row:,}"


def open_vectors(path: str) -> VectorFile:
    """Reads the header alone. Raises DataError for what is no such file."""
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file of vectors")
    kinds = {".npy": NpyVectors, ".parquet": ParquetVectors}
    if file.suffix.lower() not in kinds:
        raise DataError(f"{file}: vectors are read from .npy and .parquet files")
    found = kinds[file.suffix.lower()](file)
    if not found.rows or not found.dim:
        raise DataError(f"{file}: holds {found.rows:,} vectors of {found.dim:,} numbers")
    return found


class NpyVectors(VectorFile):
    """An array of NumPy, mapped into memory a block at a time, and its names in a text file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        array = self._array()
        if array.ndim != 2 or array.dtype.kind != "f":
            raise DataError(f"{path}: holds {array.dtype} of shape {array.shape}; vectors are floats of shape (N, D)")
        self.rows, self.dim = array.shape

    def _array(self) -> np.ndarray:
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{self.path}: damaged, cut or no array of NumPy ({reason(error)})") from None

    def read(self, first: int, last: int) -> Iterator[np.ndarray]:
        for start in range(first, last, ROWS_AT_ONCE):
            yield np.array(self._array()[start : min(start + ROWS_AT_ONCE, last)])  # a map that is kept fills memory

    @property
    def listed(self) -> Path:
        return self.path.with_suffix(IDS)

    def parts(self) -> list[Any]:
        return lists.list_parts(self.listed)

    def identify(self) -> str:
        if not self.listed.is_file():
            raise DataError(f"{self.path}: no {self.listed.name} beside it, with the name of each vector's image")
        count = _lines(self.listed)
        if count != self.rows:
            raise DataError(f"{self.listed}: {count:,} lines for the {self.rows:,} vectors of {self.path.name}")
        return digest_list(self.path) + digest_list(self.listed)


class ParquetVectors(VectorFile):
    """A parquet file with names and lists of numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            schema, self.rows = self._file.schema_arrow, self._file.metadata.num_rows
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: damaged, cut or no parquet file ({reason(error)})") from None
        if not {ID, VECTOR} <= {*schema.names}:
            raise DataError(f"{path}: needs the columns {ID} and {VECTOR}; it has {', '.join(schema.names)}")
        kind = schema.field(VECTOR).type
        listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not listed or not pa.types.is_floating(kind.value_type):
            raise DataError(f"{path}: the column {VECTOR} is of {kind}; it must be of lists of floats")
        self._ahead: Iterator[np.ndarray] = iter(())
        self._rest: np.ndarray | None = None  # of a block: what comes before `_ahead`
        self._next = -1  # the row with which they continue
        self.dim = 0
        if self.rows:
            first = next(self._file.iter_batches(1, columns=[VECTOR]))[VECTOR][0].as_py()
            self.dim = len(first or [])

    @cached_property
    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, pre_buffer=False)

    @cached_property
    def _starts(self) -> list[int]:
        about = self._file.metadata
        return np.cumsum([0, *(about.row_group(i).num_rows for i in range(about.num_row_groups))]).tolist()  # type: ignore[no-any-return]

    def read(self, first: int, last: int) -> Iterator[np.ndarray]:
        if first != self._next:
            group = int(np.searchsorted(self._starts, first, "right")) - 1
            self._rest, self._ahead = None, self._blocks(group, first)
        self._next = first
        while self._next < last:
            block = next(self._ahead) if self._rest is None else self._rest
            kept = block[: last - self._next]
            self._rest = block[len(kept) :] if len(kept) < len(block) else None
            self._next += len(kept)
            yield kept

    def _blocks(self, group: int, first: int) -> Iterator[np.ndarray]:
        """From row `first` on, which is in this row group."""
        row = self._starts[group]
        groups = range(group, len(self._starts) - 1)
        try:
            for batch in self._file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=[VECTOR]):
                column = batch.column(0)
                if row + len(column) > first:
                    yield self._array(column, row)[max(0, first - row) :]
                row += len(column)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.path}: damaged from row {row:,} on ({reason(error)})") from None

    def _array(self, column: Any, row: int) -> np.ndarray:
        """(n, D). row: of the first. Raises DataError naming the first that is not D numbers."""
        numbers = column.flatten()
        lengths = np.asarray(column.value_lengths().fill_null(-1))
        wrong = np.flatnonzero(lengths != self.dim)
        if len(wrong):
            at, found = int(wrong[0]), max(0, int(lengths[wrong[0]]))
            raise DataError(
                f"{self.path}: the vector of {self.told(row + at)} has {found:,} numbers, others {self.dim:,}"
            )
        return np.asarray(numbers.fill_null(np.nan)).reshape(len(column), self.dim)

    def parts(self) -> list[Any]:
        return [RowGroup(self.path, number) for number in range(self._file.metadata.num_row_groups)]

    def identify(self) -> str:
        return digest_list(self.path)


def names_of(part: lists.Lines | RowGroup) -> Iterator[str]:
    """The names of one of `parts`. Raises DataError for a row without one."""
    if isinstance(part, lists.Lines):
        yield from (line for _, line in lists.lines(part))
        return
    with pq.ParquetFile(part.path, pre_buffer=False) as file:
        row = sum(file.metadata.row_group(number).num_rows for number in range(part.number))
        for batch in file.iter_batches(row_groups=[part.number], columns=[ID]):
            for place, name in enumerate(batch.column(0).to_pylist()):
                if name is None or not str(name).strip():
                    raise DataError(f"{part.path}: row {row + place:,} has no {ID}")
                yield str(name)
            row += len(batch)


def _lines(path: Path) -> int:
    count, end = 0, b"\n"
    with open(path, "rb") as file:
        while chunk := file.read(COUNTED_BYTES):
            count += chunk.count(b"\n")
            end = chunk[-1:]
    return count + (end != b"\n")


def index_vectors(root: Root, part: Any, source: str) -> Iterator[Entry]:
    """The names of one part, each as that of a loose file, which may be there or not."""
    return (Entry(source, name, name, 0, UNKNOWN_SIZE) for name in names_of(part))


def identify_vectors(path: str) -> tuple[str, int]:
    """What identifies the file by its content, and its number of vectors."""
    found = open_vectors(path)
    return found.identify(), found.rows
