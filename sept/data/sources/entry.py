"""One image of a source, as every layout lists it, and which names count as images."""

import re
from typing import NamedTuple

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ACCEPTED = "accepted: " + " ".join(IMAGE_SUFFIXES)
UNKNOWN_SIZE = -1
"""Of a parquet row: sizes are in the data, which listing does not read."""

# Absolute, or with an empty, "." or ".." part, or with characters that no image should be named with.
_OUTSIDE = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f\\\ud800-\udfff]")


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


def is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(name: str) -> bool:
    """Whether a part of the posix path `name` begins with a dot, as the extra files of macOS archives do."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def leads_outside(name: str) -> bool:
    """Whether `name` is no plain relative posix path: such names from lists never reach the disk."""
    return _OUTSIDE.search(name) is not None
