"""Lists one source, whatever its layout: in one go, or by threads that leave what they find, shard by shard, in files.

So a killed scan resumes, and memory holds none of it.
"""

import hashlib
import os
import shutil
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sept.data.names import ACCEPTED
from sept.data.sources.files import Absent, Entry
from sept.data.sources.layouts import index, layout, parts, root
from sept.errors import DataError, reason
from sept.store.disk import storage_errors, sync, temporary_name

Found = Entry | Absent
FOLDER = "scan"
"""Where a parallel scan keeps what it found, inside the folder it is given, until its last image is taken."""


def _ignore(_: Any) -> None:
    """For callers that do not want to be told."""


def scan(kind: str, path: str, source: str, absent: Callable[[str], None] = _ignore) -> Iterator[Entry]:
    """The images of one source: archives by the bytes of their names and their members as they lie, loose files by the
    bytes of their paths, lists line by line. Streams; each key comes once.

    absent is told the keys of photos that a YFCC list names and the disk does not hold. Raises DataError for a source
    that is missing, damaged, without an image, or names one twice: the last two at the end.
    """
    index_one = partial(index, kind, root(kind, path), source=source)
    pieces = parts(kind, path)
    return _checked(kind, path, lambda: chain.from_iterable(map(index_one, pieces)), absent)


def scan_in_parallel(
    kind: str,
    path: str,
    source: str,
    threads: int,
    folder: Path,
    advance: Callable[[int], None] = _ignore,
    absent: Callable[[str], None] = _ignore,
) -> Iterator[Entry]:
    """`scan` by `threads` at a time, which resumes where a killed one stopped, when given the same `folder` again.

    advance is told the number of images, part by part. What was found is in `folder`/scan until all of it is taken.
    """
    index_one = partial(index, kind, root(kind, path), source=source)
    pieces, told = parts(kind, path), [advance]

    def found() -> Iterator[Found]:
        return scan_shards(pieces, index_one, threads, folder / FOLDER, told.pop() if told else _ignore)

    yield from _checked(kind, path, found, absent)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _checked(
    kind: str, path: str, found: Callable[[], Iterator[Found]], absent: Callable[[str], None]
) -> Iterator[Entry]:
    """Entries alone; raises DataError at the end where there was none, or a key came twice.

    Where that may be, the hashes of keys are kept, 8 bytes an image; equal hashes are looked at in a second pass.
    """
    hashes, images, missing = array("q"), 0, 0
    for each in found():
        if isinstance(each, Absent):
            absent(each.key)
            missing += 1
            continue
        images += 1
        if layout(kind).repeats:
            hashes.append(hash(each.key))
        yield each
    if not images:
        what = f"none of its {missing:,} images is there" if missing else f"holds no image ({ACCEPTED})"
        raise DataError(f"{path}: {what}; expected: {layout(kind).expected}")
    ordered = np.sort(np.frombuffer(hashes, np.int64))
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if suspects:
        _refuse_repeats(path, kind, (each.key for each in found() if hash(each.key) in suspects))


def _refuse_repeats(path: str, kind: str, keys: Iterator[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            listed = getattr(parts(kind, path)[0], "path", path)  # the file with the names, where there is one
            raise DataError(f"{listed}: names {key!r} twice; name every image once")
        seen.add(key)


ROWS_AT_ONCE = 1 << 16
SHARD = b"shard"
"""Names, in a file's metadata, what it was made of."""

# Of an image that is absent, all but the key is null.
SCHEMA = pa.schema(
    [
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("key", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)

Index = Callable[[Any], Iterable[Found]]


def scan_shards(
    shards: Sequence[Any], index_one: Index, threads: int, folder: Path, advance: Callable[[int], None]
) -> Iterator[Found]:
    """What `index_one` finds in each of `shards`, in their order; `threads` of them index ahead.

    Each shard's findings are a file in `folder`, an unfinished artefact's or inside it, written at once or not at all;
    called again after a kill, it indexes only the shards that have none. The files stay: the caller removes them when
    all is taken. advance is called with the number of images found, shard by shard. A shard's repr must tell it from
    others. Raises what `index_one` raises, when the turn of the shard comes, and StorageError where the disk refuses.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06d}.parquet" for number in range(len(shards))]
    for path, images in zip(paths, _indexed(shards, paths, index_one, threads), strict=True):
        yield from _read(path)
        advance(images)


def _indexed(shards: Sequence[Any], paths: Sequence[Path], index_one: Index, threads: int) -> Iterator[int]:
    """Has every shard's file written, and gives its number of images, in order."""
    stop = threading.Event()
    pool = ThreadPoolExecutor(threads)
    try:
        turns: list[int | Future[int]] = []
        for path, shard in zip(paths, shards, strict=True):
            images = _count(path, shard)
            turns.append(pool.submit(_write, path, shard, index_one, stop) if images is None else images)
        for turn in turns:
            yield turn if isinstance(turn, int) else turn.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _mark(shard: Any) -> bytes:
    return hashlib.sha256(repr(shard).encode("utf-8", "surrogatepass")).hexdigest().encode()


def _count(path: Path, shard: Any) -> int | None:
    """Images in the file of `shard`; None where there is none."""
    try:
        metadata = pq.read_metadata(path).metadata
    except (OSError, pa.ArrowException):
        return None
    return int(metadata[b"images"]) if metadata.get(SHARD) == _mark(shard) else None


def _write(path: Path, shard: Any, index_one: Index, stop: threading.Event) -> int:
    """Publishes what `index_one` finds in `shard` as the file `path`, unless stopped; gives the number of images."""
    temporary, images = path.with_name(temporary_name(path.name)), 0
    found = takewhile(lambda _: not stop.is_set(), index_one(shard))
    with storage_errors(path):
        with pq.ParquetWriter(temporary, SCHEMA, compression="zstd", write_page_checksum=True) as writer:
            while block := list(islice(found, ROWS_AT_ONCE)):
                rows = [each if isinstance(each, Entry) else (None, each.key, None, None, None) for each in block]
                columns = zip(*rows, strict=True)
                arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
                images += sum(isinstance(each, Entry) for each in block)
            writer.add_key_value_metadata({SHARD: _mark(shard), b"images": str(images).encode()})
        if stop.is_set():
            return images
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    return images


def _read(path: Path) -> Iterator[Found]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, use_threads=False):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield Absent(values[1]) if values[0] is None else Entry._make(values)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); delete it, and it is made again") from error
