"""What identifies a source by its content, wherever it lies."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sept.data.sources.files import SAMPLE_BYTES, Entry, Root, head_and_tail, is_url, size_of, within
from sept.errors import DataError

WHOLE_BYTES = 1 << 30
"""A list up to this size is hashed as a whole."""
SAMPLES = 1024
"""Of a larger list, `SAMPLE_BYTES` are hashed at so many places: its edits change its size, or are seen by chance."""
CHUNK = 1 << 20
REQUESTS = 16
"""At a time, of the ends of files behind URLs."""

T = TypeVar("T")


def digest_listing(entries: Iterable[Entry], root: Root, sample: bool = True) -> str:
    """sha256 that identifies a source by content: (key, size) in order, and with `sample` some bytes of every shard.

    Those are the first `SAMPLE_BYTES` of a shard's first image and the last of its last one: so moving the folder
    changes nothing, and an edit of the same length in the middle of a shard goes unseen. Costs one open file a shard.
    """
    digest = hashlib.sha256()
    shards: dict[str, tuple[int, int]] = {}  # shard -> first and last byte of images
    for entry in entries:
        key = entry.key.encode("utf-8")
        digest.update(b"%d %d " % (len(key), entry.size) + key)
        first, last = shards.get(entry.shard, (entry.offset, 0))
        shards[entry.shard] = (first, max(last, entry.offset + entry.size))
    if sample:
        ends = _each(root, lambda shard: head_and_tail(within(root, shard), *shards[shard]), shards)
        for data in ends:
            digest.update(data)
    return digest.hexdigest()


def _each(root: Root, work: Callable[[str], T], shards: Iterable[str]) -> Iterator[T]:
    """What `work` gives for each shard, in order; for URLs many are asked for at once."""
    if not is_url(root):
        yield from map(work, shards)
        return
    with ThreadPoolExecutor(REQUESTS) as pool:
        yield from pool.map(work, shards)


def digest_archives(root: Root, names: Sequence[str]) -> str:
    """`digest_listing` of whole archives: their names, sizes, first and last bytes. None is read further."""
    sizes = _each(root, lambda name: size_of(within(root, name)), names)
    return digest_listing([Entry("", name, name, 0, size) for name, size in zip(names, sizes, strict=True)], root)


def digest_list(path: Path) -> str:
    """sha256 of a list of images: of all of it, or of its size and evenly spaced samples above `WHOLE_BYTES`.

    The images are not looked at: one replaced under its name goes unseen, as does one of YFCC's that was absent.
    """
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            if size <= WHOLE_BYTES:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                return digest.hexdigest()
            digest.update(b"%d " % size)
            for sample in range(SAMPLES):
                file.seek(sample * (size - SAMPLE_BYTES) // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()
