"""Images in uncompressed tars, found through our own index: sequential readers lose the rest of a damaged tar."""

import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from sept.data.names import ACCEPTED, is_hidden, is_image, lost_its_suffix, plain
from sept.data.sources.files import Entry, Root, name_of, open_stream, stem_of
from sept.errors import DataError, reason

END_CHUNK = 1 << 20
END_BYTES = 2 * tarfile.BLOCKSIZE
"""Zeros that close a tar; a tar without them was cut."""
RECORD_BLOCKS = 20
"""Tars are padded with zeros to a multiple of this at most (tar -b, 20 unless said): more zeros are a hole."""
SIGN_BYTES = 16

# Of a header (POSIX pax, "ustar Interchange Format"): name, size, checksum, its end, type, magic and the name's prefix.
_NAME, _SIZE, _SIZE_END = slice(0, 100), slice(124, 135), slice(135, 136)
_SUM, _SUM_END = slice(148, 154), slice(154, 156)
_TYPE, _MAGIC, _PREFIX = slice(156, 157), slice(257, 262), slice(345, 346)
_SUM_FIELD, _BLANK_SUM = slice(148, 156), 8 * ord(" ")


# tarfile's own errors; numbers beyond any file; a thousand extended headers in a row.
_DAMAGE = (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, MemoryError)


class _Member(tarfile.TarInfo):
    """A member of a tar. tarfile sums every header twice in Python, which is most of the time an index takes."""

    short: str
    """The name in its own header, which has a checksum; a longer one comes before it, and has none."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> "_Member":  # type: ignore[override]
        """The member of a header: here for a regular file in plain octal, by tarfile for all else."""
        if not _is_plain(buf) or sum(buf) - sum(buf[_SUM_FIELD]) + _BLANK_SUM != int(buf[_SUM], 8):
            member = super().frombuf(buf, encoding, errors)
        else:
            member = cls(buf[_NAME].partition(b"\0")[0].decode(encoding, errors))
            member.size = int(buf[_SIZE], 8)
        member.short = member.name
        return member


def _is_plain(header: bytes) -> bool:
    """Whether a header is whole, that of a regular file of a short name, and its numbers are ended octal digits."""
    return (
        len(header) == tarfile.BLOCKSIZE
        and header[_TYPE] == tarfile.REGTYPE
        and header[_MAGIC] == b"ustar"
        and header[_PREFIX] == b"\0"
        and header[_SUM_END] == b"\0 "
        and header[_SIZE_END] in b"\0 "
        and _is_octal(header[_SIZE])
        and _is_octal(header[_SUM])
    )


def _is_octal(field: bytes) -> bool:
    return not field.strip(b"01234567")


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
        raise DataError(f"source {source!r}: no image in {len(paths)} tars of {paths[0].parent} ({ACCEPTED})")
    return entries


def index_tar(path: Root, source: str, wanted: Callable[[str], bool] = is_image) -> Iterator[Entry]:
    """Regular members of one tar whose names are `wanted`, in the order of the archive; hidden ones are left out.

    Names are labels and never touch the disk; bytes in them that are not UTF-8 appear as backslash escapes. Raises
    DataError, after the members before it, at damage: a bad header, a zeroed block, an archive without its end or with
    zeros beyond it; and at a name that came before, for a tar that was appended to holds old and new versions of an
    image. What cannot be told is a tar whose last 10 kB at most were zeroed at a member's edge: it is a whole tar.
    """
    last = "its start"
    seen: set[str] = set()
    try:
        with open_stream(path) as file, _opened(file) as tar:
            while (member := cast(_Member | None, tar.next())) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep a kilobyte of each
                label = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                last = f"member {label!r}"
                if member.size < 0:  # older Pythons would read on backwards, for ever (CVE-2025-8194)
                    raise tarfile.ReadError("negative size")
                if not member.isreg():
                    continue
                if not wanted(label) or is_hidden(label):
                    _refuse_hiding(file, member, label)
                    continue
                if member.issparse():
                    raise tarfile.ReadError("it is stored sparse, so its bytes are not in one piece: repack the tar")
                if plain(label) in seen:
                    raise DataError(f"{path}: holds the member {label!r} twice; repack the tar with each image once")
                seen.add(plain(label))
                yield Entry(source, f"{stem_of(path)}/{label}", name_of(path), member.offset_data, member.size)
            _check_end(file, tar.offset, path, last)  # type: ignore[attr-defined]
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged, cut or no uncompressed tar, after {last} ({reason(error)})") from error


def _opened(file: BinaryIO) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="r:", encoding="utf-8", tarinfo=_Member)


def _refuse_hiding(file: BinaryIO, member: _Member, label: str) -> None:
    """Raises ReadError where an image would be left out for a long name that is damaged: these have no checksum."""
    if member.offset_data - member.offset == tarfile.BLOCKSIZE:
        return  # the name is its header's
    if is_image(label):
        start = label.encode()[: tarfile.LENGTH_NAME].decode("utf-8", "replace")
        damaged = is_hidden(start) and not is_hidden(member.short)
    else:
        place = file.tell()
        file.seek(member.offset_data)
        damaged = lost_its_suffix(label, file.read(min(member.size, SIGN_BYTES)))
        file.seek(place)
    if damaged:
        raise tarfile.ReadError("it holds an image, but its long name is damaged or wrong: fetch the tar, or rename it")


def _check_end(file: BinaryIO, offset: int, path: Root, last: str) -> None:
    """`offset` is where tarfile stopped, which it does in silence at any bad header: an end must be there, and no more.

    That is two blocks of zeros, and zeros up to a whole record.
    """
    file.seek(offset)
    zeros = 0
    while chunk := file.read(END_CHUNK):
        if chunk.count(0) < len(chunk):
            what = "zeros amid the archive, or two tars in one file" if zeros or chunk[0] == 0 else "no member header"
            raise DataError(f"{path}: damaged at byte {offset:,}, after {last}: {what}, and not the end")
        zeros += len(chunk)
    if zeros < END_BYTES:
        raise DataError(
            f"{path}: cut off at byte {offset + zeros:,}, after {last}: the closing zero blocks are missing"
        )
    if not _is_padding(offset + zeros, zeros):
        raise DataError(
            f"{path}: damaged at byte {offset:,}, after {last}: {zeros:,} zeros to the end of the file, but tars "
            "end with 1,024 and at most a record of 10,240: fetch it again, or, if tar -A "
            "or tar -b made it so, repack it"
        )


def _is_padding(size: int, zeros: int) -> bool:
    """Whether a tar of `size` bytes that ends in so many zeros is one padded to records of some number of blocks."""
    records = (tarfile.BLOCKSIZE * blocks for blocks in range(1, RECORD_BLOCKS + 1))
    return any(size % record == 0 and zeros < END_BYTES + record for record in records)
