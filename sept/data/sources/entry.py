"""One image of a source, as every layout lists it."""

from typing import NamedTuple

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
