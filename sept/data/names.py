"""What a file's name says, by one rule for every source and task: is it an image, is it hidden, where does it lead.

Names are posix paths relative to a source's root. What is above the root is the person's own affair.
"""

import re
import string
from collections.abc import Iterable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ACCEPTED = "accepted: " + " ".join(IMAGE_SUFFIXES)

_BEGINNINGS = {
    ".jpg": (b"\xff\xd8\xff",),
    ".jpeg": (b"\xff\xd8\xff",),
    ".jpe": (b"\xff\xd8\xff",),
    ".jfif": (b"\xff\xd8\xff",),
    ".png": (b"\x89PNG\r\n",),
    ".apng": (b"\x89PNG\r\n",),
    ".webp": (b"RIFF",),
    ".bmp": (b"BM",),
    ".gif": (b"GIF8",),
    ".tif": (b"II*\0", b"MM\0*"),
    ".tiff": (b"II*\0", b"MM\0*"),
}
_OTHER_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}\Z")

# Absolute, or with an empty, "." or ".." part, or with characters that no image should be named with.
_OUTSIDE = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f\\\ud800-\udfff]")


def is_image(name: str) -> bool:
    return ends_with(name, *IMAGE_SUFFIXES)


def ends_with(name: str, *suffixes: str) -> bool:
    """Whether `name` ends in one of the lower-case `suffixes`, in any case: cameras and Windows write .JPG."""
    return name.lower().endswith(suffixes)


def any_case(pattern: str, suffix: str) -> str:
    """The glob `pattern`, its end `suffix` matching in any case."""
    if not ends_with(pattern, suffix):
        return pattern
    letters = (f"[{c}{c.upper()}]" if c in string.ascii_lowercase else c for c in suffix)
    return pattern[: -len(suffix)] + "".join(letters)


def begins_like_an_image(head: bytes, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> bool:
    """Whether the first bytes of a file are those of an image of one of the suffixes."""
    return head.startswith(tuple(sign for suffix in suffixes for sign in _BEGINNINGS[suffix]))


def lost_its_suffix(name: str, head: bytes) -> bool:
    """Whether `name` is that of an image by its first bytes, and its end looks like a damaged suffix: one letter is
    another, it is cut, or it is none at all. Other files that hold images have suffixes of their own (.thm, .nef)."""
    low = name.lower()
    other = _OTHER_SUFFIX.search(low)
    if other is None:
        return begins_like_an_image(head)
    near = [suffix for suffix in IMAGE_SUFFIXES if sum(map(str.__ne__, low[-len(suffix) :], suffix)) == 1]
    cut = [suffix for suffix in IMAGE_SUFFIXES if suffix.startswith(other[0])]
    return begins_like_an_image(head, near + cut)


def is_hidden(name: str) -> bool:
    """Whether a part of `name` begins with a dot: caches, half-copied files, and the "._a.jpg" that macOS puts beside
    "a.jpg" on disks of others and into archives. Such files never count."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def plain(name: str) -> str:
    """`name` without parts that lead nowhere: "./a.png", as `find` prints it, is a.png, and b/./a.png is b/a.png."""
    *folders, last = name.split("/")
    return "/".join([*(part for part in folders if part != "."), last])


def leads_outside(name: str) -> bool:
    """Whether `name` is no plain relative posix path: such names from lists never reach the disk."""
    return _OUTSIDE.search(name) is not None
