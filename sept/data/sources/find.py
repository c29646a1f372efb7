"""Which archives a pattern stands for: a folder of them, a name with braces, a glob in its last part, or one file.

Their suffix counts in any case, wherever names are looked for; hidden files are found by their full names alone.
"""

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from sept.data.names import any_case, ends_with, is_hidden
from sept.data.sources.files import Root, is_url, name_of, stem_of, within
from sept.errors import ConfigError, DataError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


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
    """The tars on the disk that `pattern` stands for, sorted by the bytes of their names. Raises DataError."""
    return _find_local(pattern, "tar")


def find_archives(pattern: str, kind: str) -> tuple[Root, list[str]]:
    """The folder or URL the archives of `pattern` lie in, and their names, sorted by bytes. `kind` is their suffix.

    Raises DataError where there is none, where a name in braces is missing, is listed twice or lies in another folder,
    where two are named alike but for the case of the suffix, for images would be, too, and where a name ends otherwise,
    for a reader tells the format by that.
    """
    paths = _find_remote(pattern, kind) if is_url(pattern) else _find_local(pattern, kind)
    roots = {_parent(path) for path in paths}
    if len(roots) > 1:
        raise DataError(f"{pattern}: these {kind} files lie in several folders; name a source for each")
    names = [name_of(path) for path in paths]
    if len(set(names)) < len(names):
        raise DataError(f"{pattern}: a {kind} file is listed twice")
    if wrong := [name for name in names if not ends_with(name, f".{kind}")]:
        raise DataError(f"{pattern}: {wrong[0]!r} is no .{kind} file")
    _refuse_twins(pattern, names)
    return roots.pop(), names


def _refuse_twins(pattern: str, names: Sequence[str]) -> None:
    """An image is named by the stem of its archive."""
    of_stem: dict[str, str] = {}
    for name in names:
        if (other := of_stem.setdefault(stem_of(name), name)) != name:
            raise DataError(f"{pattern}: {other!r} and {name!r} differ in their suffix's case alone; rename one")


def _parent(path: Root) -> Root:
    return path.parent if isinstance(path, Path) else path.rpartition("/")[0]


def _find_local(pattern: str, kind: str) -> list[Path]:
    folder, name = Path(pattern).parent, Path(pattern).name
    if Path(pattern).is_dir():
        paths = _visible(Path(pattern), f"*.{kind}", kind)
    elif "{" in pattern or Path(pattern).exists() or not re.search(r"[*?\[]", name):
        paths = [Path(expanded) for expanded in expand_braces(pattern)]
        _refuse_missing(pattern, kind, [path for path in paths if not path.is_file()], len(paths))
    else:
        paths = _visible(folder, name, kind)
    _refuse_none(pattern, kind, paths)
    return sorted(paths, key=os.fsencode)


def _visible(folder: Path, pattern: str, kind: str) -> list[Path]:
    return [path for path in folder.glob(any_case(pattern, f".{kind}")) if not is_hidden(path.name)]


def _find_remote(pattern: str, kind: str) -> list[str]:
    """As on the disk, but * alone makes a glob, for URLs hold the other signs; names in braces are not looked for."""
    folder, _, name = pattern.rpartition("/")
    if "*" in name:
        paths = _visible_remote(folder, name, kind)
    elif "{" in pattern or ends_with(name, f".{kind}"):
        paths = list(expand_braces(pattern))
    else:
        paths = _visible_remote(pattern, f"*.{kind}", kind)
    _refuse_none(pattern, kind, paths)
    return sorted(map(str, paths), key=str.encode)


def _visible_remote(folder: str, pattern: str, kind: str) -> list[str]:
    from sept.data.sources import remote

    names = remote.list_names(folder, any_case(pattern, f".{kind}"))
    return [str(within(folder, name)) for name in names if not is_hidden(name)]


def _refuse_missing(pattern: str, kind: str, missing: Sequence[Root], total: int) -> None:
    if missing:
        raise DataError(f"{missing[0]}: no such {kind} ({len(missing)} of {total} of {pattern} missing)")


def _refuse_none(pattern: str, kind: str, paths: Sequence[Root]) -> None:
    if not paths:
        ways = f"a folder of *.{kind}, a-{{000..009}}.{kind}, a-*.{kind} or one {kind}"
        raise DataError(f"{pattern}: no {kind} found; give {ways}")
