"""What names say, by one rule for every source and task: is a file an image, is it hidden, when are two names one.

File names are posix paths relative to a source's root; what is above the root is the person's own affair. Names that
differ by blanks at their ends or by Unicode form are one name (`tidy`). Classes that differ by case, by the kind of
blanks or by signs that nobody sees are neither one class nor two: they are refused.
"""

import os
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from sept.errors import DataError

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
MEND = "correct the file or fetch it again"
UNSEEN = "Cf"
"""Category of signs without a mark of their own: zero-width ones, soft hyphens, byte order marks."""
ALSO_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Those of other categories that Unicode has ignored where they are not known: variation selectors, fillers."""
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|^\s*$")


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


def tidy(name: str) -> str:
    """One spelling for what differs by blanks at the ends or by Unicode form: that of keyboards (NFC)."""
    return form(name.strip())


def likeness(name: str) -> str:
    """Equal for names that a person takes for one, whatever their case, blanks, Unicode form and unseen signs."""
    if name.isascii():
        return " ".join(name.split()).casefold()
    drawn = ALSO_UNSEEN.sub("", unicodedata.normalize("NFKC", ALSO_UNSEEN.sub("", name)))
    seen = "".join(sign for sign in drawn if unicodedata.category(sign) != UNSEEN)
    return unicodedata.normalize("NFKC", " ".join(seen.split()).casefold())


def check_classes(source: Any, classes: Iterable[str], mend: str = MEND) -> None:
    """Raises DataError where class names of `source` are empty, hold control characters, or are or look the same.

    mend: what a person can do about it.
    """
    seen: dict[str, str] = {}
    for name in classes:
        if _UNFIT.search(name):
            raise DataError(f"{source}: {name!a} cannot name a class; {mend}")
        other = seen.get(likeness(name))
        if other == name:
            raise DataError(f"{source}: two classes are named {name!r}; {mend}")
        if other is not None:
            names = f"{other!a} and {name!a}" if tidy(other) == tidy(name) else f"{other!r} and {name!r}"
            raise DataError(f"{source}: the classes {names} differ by case, blanks or Unicode form alone; {mend}")
        seen[likeness(name)] = name


class Folders:
    """What lies below `root`, where names may be asked for in another Unicode form than the disk has them in.

    Each folder is listed once: a stat for each of 1.8 million images would take minutes on a network disk.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, _Folder | None] = {}

    def find(self, name: str) -> str | None:
        """The file, or link to one, of a plain relative posix path, as the disk spells it; None where there is none."""
        above, _, last = name.rpartition("/")
        folder = self._list(above)
        found = folder and (last if last in folder.files else folder.file_forms.get(form(last)))
        return f"{folder.spelt}{found}" if folder and found else None

    def _list(self, name: str) -> "_Folder | None":
        if name not in self._listed:
            spelt = self._spelt(name)
            self._listed[name] = None if spelt is None else _Folder(self.root, spelt)
        return self._listed[name]

    def _spelt(self, name: str) -> str | None:
        if not name or (self.root / name).is_dir():
            return name
        above, _, last = name.rpartition("/")
        folder = self._list(above)
        found = folder and folder.folder_forms.get(form(last))
        return f"{folder.spelt}{found}" if folder and found else None


class _Folder:
    """The names in one folder. spelt: the folder below the root, with "/" at its end, or "" for the root."""

    def __init__(self, root: Path, spelt: str) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()
        try:
            with os.scandir(root / spelt) as items:
                for item in items:
                    if item.is_dir():
                        self.folders.add(item.name)
                    elif item.is_file():
                        self.files.add(item.name)
        except OSError as error:
            raise DataError(f"{root / spelt}: cannot be listed ({error.strerror}); make it readable") from error
        self.spelt = f"{spelt}/" if spelt else ""

    @cached_property
    def file_forms(self) -> dict[str, str]:
        return _by_form(self.files)

    @cached_property
    def folder_forms(self) -> dict[str, str]:
        return _by_form(self.folders)


def form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _by_form(names: set[str]) -> dict[str, str]:
    """Each name by its Unicode form; none where several have the same."""
    counts = Counter(map(form, names))
    return {form(name): name for name in names if counts[form(name)] == 1}
