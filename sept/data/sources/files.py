"""One image of a source, as every layout lists it; shards as files to read parts of, on the disk or behind a URL."""

import io
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, cast

from sept.errors import DataError

if TYPE_CHECKING:
    from sept.data.sources.remote import RemoteFile

UNKNOWN_SIZE = -1
"""Of a parquet row: sizes are in the data, which listing does not read."""


class Entry(NamedTuple):
    """One image: `size` bytes found by `offset` in the file `shard`, a posix path relative to the source's root.

    A loose file is its own shard, at offset 0. In a tar, `offset` is that of the image's bytes; in a zip, that of the
    member's header, and `size` is that of the unpacked image; in a parquet file `offset` is the row and `size`
    UNKNOWN_SIZE. `key` names the image for people, once in a source: the relative path, "<archive's stem>/<member>"
    or "<parquet file's stem>/<row>".
    """

    source: str
    key: str
    shard: str
    offset: int
    size: int


class Absent(NamedTuple):
    """An image that a list names and the disk does not hold, where that is no error: a skip to count."""

    key: str


Root = Path | str
"""The folder shards are relative to: a path, or a URL as a string (a Path would merge its slashes)."""
SAMPLE_BYTES = 4096
"""Read at each end of a shard for its digest."""
BLOCK = 1 << 16
"""Read ahead from a URL: the headers of small members come many in one request, larger members are leapt over."""


class Bytes(Protocol):
    """What readers need of a file."""

    where: str

    def pread(self, size: int, offset: int) -> bytes: ...

    def close(self) -> None: ...


class LocalFile:
    """A file on the disk, held open."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._descriptor = os.open(path, os.O_RDONLY)

    def pread(self, size: int, offset: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end of the file. Raises OSError."""
        return os.pread(self._descriptor, size, offset)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        os.close(self._descriptor)


class Seeking:
    """A file that is walked through, as one to read parts of. It is closed by whoever opened it."""

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self.where = where
        self._stream = stream

    def pread(self, size: int, offset: int) -> bytes:
        self._stream.seek(offset)
        return self._stream.read(size)

    def close(self) -> None:
        """Nothing of its own."""


class _Stream(io.RawIOBase):
    """A remote file for the libraries that walk through one: seek and read, with one block read ahead."""

    def __init__(self, file: "RemoteFile") -> None:
        self._file = file
        self._place = self._start = 0
        self._block = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}[whence]
        if self._place < 0:
            raise OSError("a place before the start of the file")
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._at(len(view))
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def _at(self, size: int) -> bytes:
        """`size` bytes from the current place on, fewer at the end."""
        first = self._place - self._start
        if not 0 <= first <= first + size <= len(self._block):
            if size >= BLOCK:
                return self._file.pread(size, self._place)
            self._start, first = self._place, 0
            self._block = self._file.pread(BLOCK, self._place)
        return self._block[first : first + size]


def is_url(path: Root) -> bool:
    return isinstance(path, str) and "://" in path


def within(root: Root, shard: str) -> Root:
    """The file `shard` of the source at `root`."""
    return root / shard if isinstance(root, Path) else f"{root.rstrip('/')}/{shard}"


def stem_of(path: Root) -> str:
    return PurePosixPath(path).stem


def name_of(path: Root) -> str:
    return PurePosixPath(path).name


def _remote(url: str) -> "RemoteFile":
    from sept.data.sources.remote import RemoteFile

    return RemoteFile(url)


def open_bytes(path: Root) -> Bytes:
    """The file at `path`, to read parts of. Raises OSError or DataError where there is none."""
    return LocalFile(path) if isinstance(path, Path) else _remote(path)


def open_stream(path: Root) -> BinaryIO:
    """The file at `path`, to walk through. Raises OSError or DataError where there is none."""
    return open(path, "rb") if isinstance(path, Path) else cast(BinaryIO, _Stream(_remote(path)))


def size_of(path: Root) -> int:
    return path.stat().st_size if isinstance(path, Path) else _remote(path).size


def read_exactly(file: Bytes, offset: int, size: int) -> bytes:
    """The `size` bytes at `offset`. Raises DataError where the file ends too early."""
    data = file.pread(size, offset)
    if len(data) != size:
        raise DataError(
            f"{file.where}: {len(data):,} of {size:,} bytes at offset {offset:,}; "
            "the file changed since it was listed: list the source again"
        )
    return data


def head_and_tail(path: Root, first: int, last: int) -> bytes:
    """Up to `SAMPLE_BYTES` from byte `first` on, and up to `SAMPLE_BYTES` before byte `last`. Raises DataError."""
    try:
        file = open_bytes(path)
        try:
            return _ends(file, first, last)
        finally:
            file.close()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def size_and_ends(path: Path) -> tuple[int, bytes]:
    """Bytes of a file, and its `head_and_tail`. Raises DataError."""
    try:
        file = LocalFile(path)
        try:
            size = file.size()
            return size, _ends(file, 0, size)
        finally:
            file.close()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _ends(file: Bytes, first: int, last: int) -> bytes:
    count = min(SAMPLE_BYTES, last - first)
    head = file.pread(count, first)
    return head + (head if count == last - first else file.pread(count, last - count))
