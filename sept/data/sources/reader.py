"""Reads the images of a source by their places, whatever its layout; the files of a task by references to them."""

import io
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple, Protocol, cast

from sept.data.images import Pixels, decode
from sept.data.names import ends_with
from sept.data.sources.files import UNKNOWN_SIZE, Bytes, LocalFile, Root, open_bytes, read_exactly, within
from sept.errors import DataError, reason

OPEN_FILES = 64
"""Descriptors a reader keeps: many workers share the process limit, often 1,024."""
OPEN_PARQUET = 2
"""Parquet files a reader keeps: each holds tens of megabytes of unpacked rows."""


class _Shard(Protocol):
    def read(self, offset: int, size: int) -> bytes: ...

    def close(self) -> None: ...


class _Plain:
    """A loose image, or a tar: the bytes are the image."""

    def __init__(self, file: Bytes) -> None:
        self._file = file

    def read(self, offset: int, size: int) -> bytes:
        if size == UNKNOWN_SIZE:  # a file that was named without a look at it
            size = cast(LocalFile, self._file).size()
        return read_exactly(self._file, offset, size)

    def close(self) -> None:
        self._file.close()


class _Zip(_Plain):
    def read(self, offset: int, size: int) -> bytes:
        from sept.data.sources.zips import read_zipped

        return read_zipped(self._file, offset, size)


class Reader:
    """Reads images of the source at `root` by their place. Picklable. Threads may share it: they read in turns, for
    decoding is what takes long, and a reader for each would multiply the open files."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._open: OrderedDict[str, _Shard] = OrderedDict()  # least recently used first
        self._turn = Lock()

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """The image listed as (shard, offset, size).

        Raises DataError where the file is gone or not as listed, and ImageError where a zip shows one image damaged.
        """
        try:
            with self._turn:
                return self._shard(shard).read(offset, size)
        except OSError as error:
            raise DataError(f"{within(self.root, shard)}: cannot be read ({error.strerror})") from error

    def _shard(self, shard: str) -> _Shard:
        if shard not in self._open:
            limit = OPEN_PARQUET if ends_with(shard, ".parquet") else OPEN_FILES
            while len(self._open) >= limit:
                self._open.popitem(last=False)[1].close()
            self._open[shard] = self._opened(shard)
        self._open.move_to_end(shard)
        return self._open[shard]

    def _opened(self, shard: str) -> _Shard:
        path = within(self.root, shard)
        if ends_with(shard, ".parquet"):
            from sept.data.sources.parquet import Rows

            return Rows(path)
        return _Zip(open_bytes(path)) if ends_with(shard, ".zip") else _Plain(open_bytes(path))

    def close(self) -> None:
        """Gives the descriptors back; a later read opens anew."""
        while self._open:
            self._open.popitem()[1].close()

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Root]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Root]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]


class Member(NamedTuple):
    """A file in an archive, or a row of a parquet file; offset and size are those of an `Entry` of a source.

    Its str, which messages begin with, says both; what is read of it is what `Path` has.
    """

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}, {self.name}"

    def read_bytes(self) -> bytes:
        """Raises DataError where the archive is damaged there or not as it was listed: it does not name the member."""
        return reader_of(self.archive.parent).read(self.archive.name, self.offset, self.size)

    def open(self, mode: str = "rb") -> BinaryIO:
        assert mode == "rb", mode
        return io.BytesIO(self.read_bytes())


File = Path | Member
"""The one reference to an image, a mask or an annotation of a task."""


@lru_cache(maxsize=4)
def reader_of(folder: Path) -> Reader:
    """One a process: archives stay open."""
    return Reader(folder)


def read_labelled(file: File, least_side: int | None = None) -> Pixels:
    """`decode` of an image of a task. Raises DataError that names it."""
    try:
        return decode(file.read_bytes(), least_side)
    except (DataError, OSError) as error:
        why = reason(error, file.archive if isinstance(file, Member) else file)  # it may name the archive itself
        raise DataError(f"{file}: {why}; replace it: a labelled image is never skipped") from None
