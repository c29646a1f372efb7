"""Images in zip archives, stored or deflated: found by the archive's directory, read by the header before each."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from sept.data.images import ImageError
from sept.data.names import begins_like_an_image, is_hidden, is_image, plain
from sept.data.sources.files import Bytes, Entry, Root, Seeking, name_of, open_stream, read_exactly, stem_of
from sept.errors import DataError, reason

MAX_MEMBER_BYTES = 1 << 28
"""A larger image is refused: a deflated member may unpack to a thousand times its size."""
CHUNK = 1 << 16

# APPNOTE 4.3.7: signature, flags, method, CRC-32, packed and unpacked size, lengths of the name and the extra field.
_HEADER = struct.Struct("<4s2xHH4xIIIHH")
_SIGNATURE, _DESCRIPTOR = b"PK\3\4", b"PK\7\10"
_ENCRYPTED, _CRC_FOLLOWS, _UTF8 = 0x1, 0x8, 0x800
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# The archive's end records: signature, two disks, members on this disk, in all, .. (4.3.16); size of the comment last.
_END = struct.Struct("<4s4xHH8xH")
_END_SIGNATURE = b"PK\5\6"
_LOCATOR_BYTES, _LOCATOR_SIGNATURE = 20, b"PK\6\7"
_END64 = struct.Struct("<4s20xQQ16x")
_END64_SIGNATURE = b"PK\6\6"
_COUNTED = 1 << 16
"""Archives of more members without the 64-bit record, as macOS writes them, count modulo this."""
MAX_LINK_BYTES = 4096
"""Of a path on Linux."""


def index_zip(path: Root, source: str, wanted: Callable[[str], bool] = is_image) -> Iterator[Entry]:
    """Members of one zip whose names are `wanted`, by their place in it; folders, links and hidden ones are left out.

    Names are labels and never touch the disk. The archive's directory, some 600 bytes a member, is in memory meanwhile.
    It has no checksum, so it is compared with its end record's count and with the name in every member's own header:
    an image whose record is damaged would be left out in silence. What else is in both is read from the member's.
    Raises DataError for an archive that is damaged or cut, and for a member that is encrypted, packed otherwise than
    stored or deflated, larger than `MAX_MEMBER_BYTES`, laid over another one, or of a name that came before.
    """
    try:
        with open_stream(path) as file, zipfile.ZipFile(file) as archive:
            members, end = archive.infolist(), archive.start_dir
            members.sort(key=lambda member: member.header_offset)
            _refuse_lost(file, len(members), path)
            _refuse_overlap(members, end, path)
            for member in members:
                _refuse_other_name(file, member, path)
            images = [member for member in members if wanted(member.filename) and not is_hidden(member.filename)]
            images = [member for member in images if not _is_link(file, member, path)]
    except DataError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise DataError(f"{path}: damaged, cut or no zip archive ({reason(error)})") from error
    seen: set[str] = set()
    for member in images:
        _refuse_unfit(member, path)
        if plain(member.filename) in seen:
            raise DataError(f"{path}: holds the member {member.filename!r} twice; repack it with each image once")
        seen.add(plain(member.filename))
        key = f"{stem_of(path)}/{member.filename}"
        yield Entry(source, key, name_of(path), member.header_offset, member.file_size)


def _refuse_lost(file: BinaryIO, found: int, path: Root) -> None:
    """Raises DataError where the end record counts other than the `found` members of the directory."""
    size = file.seek(0, io.SEEK_END)
    start = max(0, size - _END.size - _COUNTED)
    file.seek(start)
    tail = file.read()
    place = tail.rfind(_END_SIGNATURE)  # zipfile found one there
    _, here, total, _ = _END.unpack_from(tail, place)
    before = tail[max(0, place - _LOCATOR_BYTES - _END64.size) : place]
    modulus = _COUNTED
    if before[-_LOCATOR_BYTES:][:4] == _LOCATOR_SIGNATURE and before[:4] == _END64_SIGNATURE:
        _, here, total = _END64.unpack_from(before)
        modulus = 1 << 64
    if not here == total == found % modulus:
        raise DataError(
            f"{path}: damaged: its directory names {found:,} members and its end record counts {total:,} "
            f"({here:,} on this disk); fetch the zip again"
        )


def _refuse_other_name(file: BinaryIO, member: zipfile.ZipInfo, path: Root) -> None:
    """Raises DataError where the header at the place of `member` is none or has another name."""
    name = member.orig_filename.encode("utf-8" if member.flag_bits & _UTF8 else "cp437")
    file.seek(member.header_offset)
    header = file.read(_HEADER.size + len(name))
    known = header[:4] == _SIGNATURE and len(header) == _HEADER.size + len(name)
    if known:
        _, flags, _, _, _, _, length, _ = _HEADER.unpack_from(header)
        # Letters beyond ASCII mean something else where one of the two says UTF-8 and the other does not.
        coded_alike = name.isascii() or flags & _UTF8 == member.flag_bits & _UTF8
        known = length == len(name) and header[_HEADER.size :] == name and coded_alike
    if not known:
        raise DataError(
            f"{path}: damaged: no member {member.orig_filename!r} at byte {member.header_offset:,}, where the "
            "directory says it is; fetch the zip again"
        )


def _is_link(file: BinaryIO, member: zipfile.ZipInfo, path: Root) -> bool:
    """Whether an image is in truth a link, whose content is the name of what it points to.

    The directory alone says so: raises DataError where the content shows that it is wrong.
    """
    if not stat.S_ISLNK(member.external_attr >> 16):
        return False
    _refuse_unfit(member, path)
    if member.file_size <= MAX_LINK_BYTES:
        try:
            content = read_zipped(Seeking(file, str(path)), member.header_offset, member.file_size)
        except ImageError as error:
            raise DataError(f"{error}; fetch the zip again") from error
        if not begins_like_an_image(content):
            return True
    raise DataError(f"{path}: damaged: {member.filename!r} is called a link and holds an image; fetch the zip again")


def _refuse_unfit(member: zipfile.ZipInfo, path: Root) -> None:
    name = member.filename
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{path}: the member {name!r} is encrypted; repack the zip without a password")
    if member.compress_type not in _METHODS:
        raise DataError(f"{path}: the member {name!r} is neither stored nor deflated; repack the zip (zip -0)")
    if max(member.file_size, member.compress_size) > MAX_MEMBER_BYTES:
        raise DataError(
            f"{path}: the member {name!r} says it unpacks to {member.file_size:,} bytes, more than an image's "
            f"{MAX_MEMBER_BYTES:,}; remove it"
        )
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise DataError(f"{path}: damaged: the member {name!r} is stored in two sizes; fetch the zip again")


def _refuse_overlap(members: list[zipfile.ZipInfo], end: int, path: Root) -> None:
    """Archives whose members share bytes are bombs or damaged; the last member ends before the directory at `end`."""
    ends = [*(member.header_offset for member in members[1:]), end]
    for member, following in zip(members, ends, strict=False):  # an empty archive has an end, too
        last = member.header_offset + _HEADER.size + len(member.orig_filename) + member.compress_size
        if member.header_offset < 0 or last > following:
            raise DataError(f"{path}: damaged: the member {member.filename!r} runs into the next; fetch the zip again")


def read_zipped(file: Bytes, offset: int, size: int) -> bytes:
    """The image of `size` bytes whose member header is at `offset`.

    Raises ImageError where the bytes are not those that were packed, DataError where there is no such member.
    """
    header = _HEADER.unpack(read_exactly(file, offset, _HEADER.size))
    signature, flags, method, crc, _, _, name, extra = header
    if signature != _SIGNATURE or method not in _METHODS or flags & _ENCRYPTED:
        raise DataError(f"{file.where}: no readable member at byte {offset:,}; damaged, or changed since it was listed")
    start = offset + _HEADER.size + name + extra
    if method == zipfile.ZIP_STORED:
        data, end = read_exactly(file, start, size), start + size
    else:
        data, end = _inflate(file, start, size)
    if zlib.crc32(data) not in (_following(file, end) if flags & _CRC_FOLLOWS else (crc,)):
        raise ImageError(f"{file.where}, byte {offset:,}: damaged: the bytes do not have the checksum of the zip")
    return data


def _inflate(file: Bytes, start: int, size: int) -> tuple[bytes, int]:
    """The unpacked bytes of the stream at `start`, never more than `size`, and the place where the stream ends."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data, end = bytearray(), start
    try:
        while not inflater.eof and len(data) <= size:
            piece = file.pread(CHUNK, end)
            if not piece:
                break
            end += len(piece)
            data += inflater.decompress(piece, size + 1 - len(data))
    except zlib.error as error:
        raise ImageError(f"{file.where}, byte {start:,}: damaged: cannot be unpacked ({reason(error)})") from error
    if not inflater.eof or len(data) != size:
        raise ImageError(f"{file.where}, byte {start:,}: damaged: unpacks to other than {size:,} bytes")
    return bytes(data), end - len(inflater.unused_data)


def _following(file: Bytes, place: int) -> tuple[int, ...]:
    """The CRC-32 behind a member's bytes, with or without its signature: both are in use (APPNOTE 4.3.9.3)."""
    first, second = struct.unpack("<4s4s", read_exactly(file, place, 8))
    crcs = (first, second) if first == _DESCRIPTOR else (first,)
    return tuple(int.from_bytes(crc, "little") for crc in crcs)
