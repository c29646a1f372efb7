"""Images that a text file names: relative paths, or the hashes of YFCC100M.

A list is read in parts, whatever its size: memory holds a line. No name in it leads outside the folder of the images.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sept.data.names import ACCEPTED, is_hidden, is_image, leads_outside, plain
from sept.data.sources.files import Absent, Entry
from sept.errors import DataError

PARTS = 1024
PART_BYTES = 1 << 22
"""A list is scanned in at most `PARTS` parts of at least so many bytes: some 50,000 lines."""
BOM = b"\xef\xbb\xbf"

YFCC_IMAGES = "data/images"
YFCC_LISTS = ("yfcc100m_dataset", "yfcc100m_hash", "yfcc100m_subset_data.tsv")
"""In the order they are looked for: Yahoo's metadata and its table of hashes, and OpenAI's choice of 15M for CLIP."""
# Number of tab-separated columns -> the column of the hash: a list of hashes; yfcc100m_hash (photo id, hash); OpenAI's
# subset (line, photo id, hash); yfcc100m_dataset as Multimedia Commons hosts it (line, photo id, hash, ... , video).
_HASH_COLUMN = {1: 0, 2: 1, 3: 2, 25: 2}
_VIDEO_COLUMN = 24
_HASH = re.compile(r"[0-9a-f]{32}")


class Lines(NamedTuple):
    """The lines of the file `path` that begin in its bytes `first` to `last` - 1."""

    path: Path
    first: int
    last: int


def list_parts(path: Path) -> list[Lines]:
    """The list cut into parts, in order."""
    size = path.stat().st_size
    step = max(PART_BYTES, -(-size // PARTS))
    return [Lines(path, first, min(first + step, size)) for first in range(0, size, step)]


def index_list(root: Path, part: Lines, source: str) -> Iterator[Entry]:
    """The images that the lines name by posix paths relative to `root`, in the order of the lines.

    Blank lines and hidden files, which `find` prints too, are left out; "./a.jpg" is a.jpg. Raises DataError for
    a line that is no such path or no image by its suffix, and for an image that is not there.
    """
    for place, line in lines(part):
        name = plain(line)
        hidden = is_hidden(name)
        if leads_outside(name) or not (hidden or is_image(name)):
            raise _wrong(part, place, line, f"is no path of an image relative to the list ({ACCEPTED})")
        if hidden:
            continue
        size = _size(root, name)
        if size is None:
            raise _wrong(part, place, line, f"is not there: no file {root / name}; unpack it, or drop the line")
        yield Entry(source, name, name, 0, size)


def index_yfcc(root: Path, part: Lines, source: str) -> Iterator[Entry | Absent]:
    """The photos whose hashes the lines name, in the order of the lines, from <h[:3]>/<h[3:6]>/<h>.jpg below `root`.

    Photos vanish from Flickr, so one that is not there is no error but an `Absent`. Videos of yfcc100m_dataset are left
    out; other lists do not tell them, and they come out absent. Raises DataError for a line without a hash.
    """
    for place, line in lines(part):
        hash_, video = _photo(part, place, line)
        if not video:
            name = f"{YFCC_IMAGES}/{hash_[:3]}/{hash_[3:6]}/{hash_}.jpg"
            size = _size(root, name)
            yield Absent(name) if size is None else Entry(source, name, name, 0, size)


def find_yfcc_list(path: Path) -> Path:
    """The list that `path` is, or the first of `YFCC_LISTS` in the folder that it is. Raises DataError."""
    found = path if path.is_file() else next((path / name for name in YFCC_LISTS if (path / name).is_file()), None)
    if found is None:
        raise DataError(f"{path}: no list of photos; it needs {', '.join(YFCC_LISTS)} or, as the path, another list")
    return found


def _photo(part: Lines, place: int, line: str) -> tuple[str, bool]:
    """The hash that a line names, and whether it is a video's."""
    columns = line.split("\t")
    column = _HASH_COLUMN.get(len(columns))
    if column is None or not _HASH.fullmatch(columns[column]):
        wanted = "is no hash of 32 hexadecimal digits, and no line of yfcc100m_dataset (25 columns) or yfcc100m_hash"
        raise _wrong(part, place, line, wanted)
    return columns[column], len(columns) > _VIDEO_COLUMN and columns[_VIDEO_COLUMN] == "1"


def _size(root: Path, name: str) -> int | None:
    """Bytes of the file `name` below `root`, links followed; None where there is none."""
    try:
        status = os.stat(os.path.join(root, name))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{root / name}: cannot be read ({error.strerror})") from error
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def lines(part: Lines) -> Iterator[tuple[int, str]]:
    """(first byte, text) of the lines of a part that are not blank."""
    with open(part.path, "rb") as file:
        if part.first:
            file.seek(part.first - 1)
            file.readline()  # the rest of a line that began before
        place = file.tell()
        while place < part.last and (line := file.readline()):
            text = line.removeprefix(BOM) if place == 0 else line
            text = text.rstrip(b"\r\n")
            if text.strip():
                yield place, _text(part, place, text)
            place += len(line)


def _text(part: Lines, place: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise _wrong(part, place, line.decode("utf-8", "backslashreplace"), "is not UTF-8") from None


def _wrong(part: Lines, place: int, line: str, what: str) -> DataError:
    """The error for the line at byte `place`, with its number, which is counted only now."""
    with open(part.path, "rb") as file:
        number = 1
        while place > 0:
            block = file.read(min(place, PART_BYTES))
            number += block.count(b"\n")
            place -= len(block)
    return DataError(f"{part.path}, line {number:,}: {line[:200]!a} {what}")
