"""Images in parquet files, as Hugging Face keeps them: a column `image` of {bytes, path}, or of bytes."""

import bisect
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from sept.data.sources.files import UNKNOWN_SIZE, Entry, Root, name_of, open_stream, stem_of
from sept.errors import DataError, reason

COLUMN = "image"
LEAVES = ("image.bytes", "image")
HELD_BYTES = 1 << 25
"""Rows are unpacked so many bytes at a time, by the mean size of their row group's rows, and the last lot is kept."""
BUFFER = 1 << 20


def index_parquet(path: Root, source: str) -> Iterator[Entry]:
    """The rows of one file in order; reads the footer alone, so an entry's size is UNKNOWN_SIZE.

    Raises DataError for a file that is damaged or cut, without the column, or with rows without bytes.
    """
    rows = Rows(path)
    try:
        rows.refuse_no_bytes()
        for row in range(rows.count):
            yield Entry(source, f"{stem_of(path)}/{row}", name_of(path), row, UNKNOWN_SIZE)
    finally:
        rows.close()


class Rows:
    """The images of one parquet file by row number, quick in ascending order.

    Memory holds about `HELD_BYTES`, however large the row groups are; a row of another group, or before the rows that
    are held, makes it unpack its group from the start.
    """

    def __init__(self, path: Root) -> None:
        self._path = path
        stream = open_stream(path)
        try:
            self._file = pq.ParquetFile(stream, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            stream.close()
            raise DataError(f"{path}: damaged, cut or no parquet file ({reason(error)})") from error
        self._stream = stream
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._leaf = self._find_leaf()
        groups = range(self._file.metadata.num_row_groups)
        sizes = (self._file.metadata.row_group(group).num_rows for group in groups)
        self._starts = list(itertools.accumulate(sizes, initial=0))
        self._refuse_miscounted()
        self._held: pa.Array = pa.array([], pa.binary())
        self._first = self._group = -1

    @property
    def count(self) -> int:
        return self._starts[-1]

    def _find_leaf(self) -> int:
        """The place of the images' bytes among the file's columns. Raises DataError."""
        names = self._file.schema.names
        paths = [self._file.schema.column(place).path for place in range(len(names))]
        for place, path in enumerate(paths):
            if path in LEAVES and self._file.schema.column(place).physical_type == "BYTE_ARRAY":
                return place
        self.close()
        raise DataError(
            f"{self._path}: no column {COLUMN!r} of image bytes, or of {{bytes, path}}; its columns: {', '.join(paths)}"
        )

    def _refuse_miscounted(self) -> None:
        """Raises DataError where the footer, which has no checksum, counts rows in two ways."""
        about = self._file.metadata
        values = (about.row_group(group).column(self._leaf).num_values for group in range(about.num_row_groups))
        if not about.num_rows == self.count == sum(values):
            self.close()
            raise DataError(f"{self._path}: damaged: the footer counts its rows in two ways; fetch the file again")

    def refuse_no_bytes(self) -> None:
        """Raises DataError where rows lack their bytes: by the footer, or where it has no counts, by reading all."""
        missing = sum(self._nulls(group) for group in range(len(self._starts) - 1))
        if missing:
            raise DataError(
                f"{self._path}: {missing:,} of {self.count:,} rows have no bytes in the column {COLUMN!r}, at most a "
                "path; write the file again with the images inside"
            )

    def _nulls(self, group: int) -> int:
        statistics = self._file.metadata.row_group(group).column(self._leaf).statistics
        if statistics is not None and statistics.has_null_count:
            return statistics.null_count
        return sum(array.null_count for array in map(_bytes_of, self._unpack(group)))

    def read(self, row: int, size: int) -> bytes:
        """The bytes of one row; `size` is UNKNOWN_SIZE. Raises DataError where they cannot be read."""
        assert size == UNKNOWN_SIZE, "an entry of another layout"
        if not 0 <= row < self.count:
            raise DataError(f"{self._path}: no row {row:,} of {self.count:,}; it changed since it was listed")
        try:
            self._hold(row)
            data = self._held[row - self._first].as_py()
        except (pa.ArrowException, OSError) as error:
            self._group = -1
            raise DataError(f"{self._path}, row {row:,}: damaged ({reason(error)}); fetch the file again") from error
        if data is None:
            raise DataError(f"{self._path}, row {row:,}: has no bytes; it changed since it was listed")
        return data

    def _hold(self, row: int) -> None:
        """Unpacks until the row is among those held."""
        group = bisect.bisect_right(self._starts, row) - 1
        if group != self._group or row < self._first:
            self._batches, self._group = self._unpack(group), group
            self._held, self._first = self._held[:0], self._starts[group]
        while row >= self._first + len(self._held):
            self._first += len(self._held)
            self._held = _bytes_of(next(self._batches))

    def _unpack(self, group: int) -> Iterator[pa.RecordBatch]:
        about = self._file.metadata.row_group(group)
        per_row = max(1, about.column(self._leaf).total_uncompressed_size // max(1, about.num_rows))
        rows = max(1, HELD_BYTES // per_row)
        leaf = self._file.schema.column(self._leaf).path
        return self._file.iter_batches(rows, row_groups=[group], columns=[leaf], use_threads=False)

    def close(self) -> None:
        self._batches = iter(())
        self._file.close()
        self._stream.close()


def columns(path: Root) -> list[str]:
    """Names of the columns of a file. Raises DataError for one that is damaged, cut or missing."""
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def read_column(path: Root, wanted: Sequence[str]) -> tuple[pa.ChunkedArray, list[str] | None]:
    """The first of the `wanted` columns that there is, of whole numbers, of strings or of lists of one of them; and the
    names of numbered classes. Raises DataError for a file that is damaged or cut, or has no such column."""
    with _opened(path) as file:
        schema = file.schema_arrow
        name = next((each for each in wanted if each in schema.names), None)
        if name is None:
            told = " or ".join(map(repr, wanted))
            raise DataError(f"{path}: no column {told}; its columns: {', '.join(schema.names)}")
        values = file.read(columns=[name], use_threads=False)[name]
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    listed = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
    kind = values.type.value_type if listed else values.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{path}: the column {name!r} holds {values.type}, not whole numbers or strings")
    return values, class_names(schema, name) if pa.types.is_integer(kind) else None


@contextmanager
def _opened(path: Root) -> Iterator[pq.ParquetFile]:
    try:
        with open_stream(path) as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: damaged, cut or no parquet file ({reason(error)})") from error


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """What Hugging Face writes beside the columns: {"info": {"features": {COLUMN: {"names": [..]}}}}, in a list of
    labels below "feature"."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        names = feature.get("feature", feature)["names"]
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _bytes_of(batch: pa.RecordBatch) -> pa.Array:
    column = batch.column(0)
    return column.field("bytes") if pa.types.is_struct(column.type) else column
