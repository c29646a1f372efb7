"""Where the images of a source lie: a listing of (key, shard, offset, size), its digest, and a reader of its bytes.

A source is a folder of loose images or a set of uncompressed tars in one folder. Tars are read through our own offset
index, because sequential readers lose the rest of a damaged tar in silence. Listings feed the pool and the tasks.
"""

import hashlib
import itertools
import os
import re
import tarfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from sept.errors import ConfigError, DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SAMPLE_BYTES = 4096
"""Read at each end of a shard for its digest."""
OPEN_FILES = 64
"""Descriptors a reader keeps: many workers share the process limit, often 1,024."""
END_CHUNK = 1 << 20

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class Entry(NamedTuple):
    """One image: `size` bytes at `offset` of the file `shard`, a posix path relative to the source's root.

    A loose file is its own shard, at offset 0. `key` names the image for people: the relative path, or for a tar
    "<tar stem>/<member name>".
    """

    source: str
    key: str
    shard: str
    offset: int
    size: int


def list_folder(root: Path, source: str) -> list[Entry]:
    """Images below `root` at any depth, by suffix in any case, sorted by the bytes of their relative path.

    Hidden files and folders are left out; links to files are followed. Raises DataError for a folder that is missing,
    unreadable or without images, and for what would be lost in silence: a link to a folder, a link to nothing, a name
    that is not UTF-8 (tables cannot hold it).
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of images ({_accepted()})")
    try:
        found = sorted(_walk(os.fsencode(root), b""))
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({error})") from error
    if not found:
        raise DataError(f"{root}: holds no image at any depth ({_accepted()})")
    names = ((_utf8(root, name), size) for name, size in found)
    return [Entry(source, name, name, 0, size) for name, size in names]


def _accepted() -> str:
    return "accepted: " + " ".join(IMAGE_SUFFIXES)


def _walk(root: bytes, below: bytes) -> Iterator[tuple[bytes, int]]:
    """(relative path, size) of the images in the folder `below` of `root`, in any order."""
    with os.scandir(os.path.join(root, below)) as items:
        for item in items:
            name = os.path.join(below, item.name)
            if item.name.startswith(b"."):
                continue
            if item.is_dir(follow_symlinks=False):
                yield from _walk(root, name)
            elif item.is_symlink() and item.is_dir():
                path = os.fsdecode(item.path)
                raise DataError(f"{path!a} is a link to a folder; make that folder a source of its own, or copy it")
            elif _is_image(os.fsdecode(item.name)) and (item.is_symlink() or item.is_file()):
                yield name, item.stat().st_size


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _utf8(root: Path, name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{root}: the file name {name!r} is not UTF-8; rename it") from None


def expand_braces(pattern: str) -> list[str]:
    """Names that "a-{000..009}.tar" or "{x,y}.tar" stand for, in order; a range keeps its zeros. Several multiply."""
    parts = _BRACES.split(pattern)  # literal, inside, literal, inside, ..., literal
    choices = [_alternatives(part, pattern) if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _alternatives(inside: str, pattern: str) -> list[str]:
    span = _RANGE.fullmatch(inside)
    if span is None:
        if "," in inside:
            return inside.split(",")
        raise ConfigError(f"{pattern}: {{{inside}}} is neither a range like {{000..009}} nor a list like {{a,b}}")
    first, last = int(span[1]), int(span[2])
    if first > last:
        raise ConfigError(f"{pattern}: the range {{{inside}}} is empty")
    return [str(number).zfill(len(span[1])) for number in range(first, last + 1)]


def find_tars(pattern: str) -> list[Path]:
    """The tars `pattern` stands for: a folder of *.tar, a name with braces, a glob in its last part, or one tar.

    Sorted by the bytes of their names. Raises DataError where there is none, or where a name in braces is missing.
    """
    folder, name = Path(pattern).parent, Path(pattern).name
    if Path(pattern).is_dir():
        paths = list(Path(pattern).glob("*.tar"))
    elif "{" in pattern or Path(pattern).exists() or not re.search(r"[*?\[]", name):
        paths = [Path(expanded) for expanded in expand_braces(pattern)]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(f"{missing[0]}: no such tar ({len(missing)} of {len(paths)} of {pattern} missing)")
    else:
        paths = list(folder.glob(name))
    if not paths:
        raise DataError(f"{pattern}: no tar found; give a folder of *.tar, a-{{000..009}}.tar, a-*.tar or one tar")
    return sorted(paths, key=os.fsencode)


def list_tars(paths: Sequence[Path], source: str) -> list[Entry]:
    """Images in uncompressed tars of one folder, tar by tar in the order given, each in the order of the archive.

    Raises DataError for tars of several folders or listed twice, for a damaged or cut tar, and for no image in all.
    """
    if len({path.parent for path in paths}) > 1:
        raise DataError(f"{paths[0]}: the tars of source {source!r} lie in several folders; name a source for each")
    if len(set(paths)) < len(paths):
        raise DataError(f"{paths[0].parent}: a tar of source {source!r} is listed twice")
    entries = [entry for path in paths for entry in index_tar(path, source)]
    if not entries:
        raise DataError(f"source {source!r}: no image in {len(paths)} tars of {paths[0].parent} ({_accepted()})")
    return entries


def index_tar(path: Path, source: str) -> Iterator[Entry]:
    """Regular image members of one tar in the order of the archive; others, and hidden ones, are left out.

    Names are labels and never touch the disk; bytes in them that are not UTF-8 appear as backslash escapes. Raises
    DataError, after the members before it, at damage: a bad header, a zeroed block, an archive without its end.
    """
    last = "its start"
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            for member in tar:
                label = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                last = f"member {label!r}"
                if member.size < 0:  # older Pythons would read on backwards, for ever (CVE-2025-8194)
                    raise tarfile.ReadError("negative size")
                if member.isreg() and _is_image(label) and not _is_hidden(label):
                    if member.issparse():
                        raise tarfile.ReadError(
                            "it is stored sparse, so its bytes are not in one piece: repack the tar"
                        )
                    yield Entry(source, f"{path.stem}/{label}", path.name, member.offset_data, member.size)
            _check_end(file, tar.offset, path, last)
    except DataError:
        raise
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{path}: damaged, cut or no uncompressed tar, after {last} ({error})") from error


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _check_end(file: BinaryIO, offset: int, path: Path, last: str) -> None:
    """`offset` is where tarfile stopped, which it does in silence at any bad header: there must be zeros to the end."""
    file.seek(offset)
    zeros = 0
    while chunk := file.read(END_CHUNK):
        if chunk.count(0) < len(chunk):
            raise DataError(f"{path}: damaged at byte {offset:,}, after {last}: no member header, and not the end")
        zeros += len(chunk)
    if zeros < tarfile.BLOCKSIZE:
        raise DataError(
            f"{path}: cut off at byte {offset + zeros:,}, after {last}: the closing zero blocks are missing"
        )


def digest_listing(entries: Iterable[Entry], root: Path, sample: bool = True) -> str:
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
        for shard, (first, last) in shards.items():
            digest.update(head_and_tail(root / shard, first, last))
    return digest.hexdigest()


def head_and_tail(path: Path, first: int, last: int) -> bytes:
    """Up to `SAMPLE_BYTES` from byte `first` on, and up to `SAMPLE_BYTES` before byte `last`. Raises DataError."""
    try:
        with open(path, "rb", buffering=0) as file:
            count = min(SAMPLE_BYTES, last - first)
            return os.pread(file.fileno(), count, first) + os.pread(file.fileno(), count, last - count)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


class Reader:
    """Reads images of the source at `root` by their place. Picklable; one per thread (workers are processes)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: OrderedDict[str, int] = OrderedDict()  # shard -> descriptor, least recently used first

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset` of `shard`. Raises DataError where the file is gone or ends too early."""
        try:
            data = os.pread(self._descriptor(shard), size, offset)
        except OSError as error:
            raise DataError(f"{self.root / shard}: cannot be read ({error.strerror})") from error
        if len(data) != size:
            raise DataError(
                f"{self.root / shard}: {len(data):,} of {size:,} bytes at offset {offset:,}; "
                "the file changed since it was listed: list the source again"
            )
        return data

    def _descriptor(self, shard: str) -> int:
        if shard not in self._open:
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[shard] = os.open(self.root / shard, os.O_RDONLY)
        self._open.move_to_end(shard)
        return self._open[shard]

    def close(self) -> None:
        """Gives the descriptors back; a later read opens anew."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Path]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]
