"""The layouts a source can have, by the name of its kind: where it lies, what it is cut into, what is in each part.

Which archives a pattern stands for: a folder of them, a name with braces, a glob in its last part, or one file. Their
suffix counts in any case, wherever names are looked for; hidden files are found by their full names alone.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sept.data.names import ACCEPTED, any_case, ends_with, is_hidden
from sept.data.sources.files import Absent, Entry, Root, is_url, name_of, stem_of, within
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
        of_several = f" ({len(missing)} of {total} of {pattern} are missing)" if total > 1 else ""
        raise DataError(f"{missing[0]}: no such {kind}{of_several}")


def _refuse_none(pattern: str, kind: str, paths: Sequence[Root]) -> None:
    if not paths:
        ways = f"a folder of *.{kind}, a-{{000..009}}.{kind}, a-*.{kind} or one {kind}"
        raise DataError(f"{pattern}: no {kind} found; give {ways}")


Kind = Literal["folder", "webdataset", "zip", "parquet", "list", "yfcc", "vectors"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Layout:
    """`parts` are what is scanned at a time: archives by name, or spans of a folder or list.

    `index(root, part, source)` lists one of them; `repeats` says that different parts may name an image twice, and
    `expected` shows the layout to people.
    """

    expected: str
    root: Callable[[str], Root]
    parts: Callable[[str], list[Any]]
    index: Callable[[Root, Any, str], Iterator[Entry | Absent]]
    identify: Callable[[str], tuple[str, int]]
    repeats: bool = False


def root(kind: str, path: str) -> Root:
    """The folder, or the URL, that the shards of the source are relative to. Raises DataError for a missing source."""
    return _of(kind, path, lambda layout: layout.root(path))


def parts(kind: str, path: str) -> list[Any]:
    """What the source is scanned by, in order: plain values that can be pickled. Raises DataError."""
    return _of(kind, path, lambda layout: layout.parts(path))


def index(kind: str, root: Root, part: Any, source: str) -> Iterator[Entry | Absent]:
    """The images of one of `parts`. Raises DataError at damage, after what comes before it."""
    return layout(kind).index(root, part, source)


def identify(kind: str, path: str) -> tuple[str, int]:
    """Digest of what the source holds, and its number of images (0: not known before it is scanned).

    Equal after the source was moved elsewhere, different after it was changed at a place that is looked at: the ends
    of files, and the whole of a list. Raises DataError when nothing is there.
    """
    return _of(kind, path, lambda layout: layout.identify(path))


def _of(kind: str, path: str, work: Callable[[Layout], Any]) -> Any:
    """What `work` finds; a DataError of a source that is not there shows the layout expected."""
    found = layout(kind)
    if is_url(path) and kind not in _ARCHIVES:
        raise ConfigError(f"{path}: a URL names {', '.join(_ARCHIVES)} files; copy a {kind} source to this machine")
    try:
        return work(found)
    except DataError as error:
        raise DataError(f"{error}; expected: {found.expected}") from error


# Each reader is imported when a source of its kind is there: a plan does not import them all.


def _archives(suffix: str, index_one: Callable[[Root, str], Iterator[Entry]], inside: str) -> Layout:
    def find(path: str) -> tuple[Root, list[str]]:
        return find_archives(path, suffix)

    def identify(path: str) -> tuple[str, int]:
        from sept.data.sources.digest import digest_archives

        return digest_archives(*find(path)), 0

    return Layout(
        f"a folder or URL of a-000.{suffix}, a-001.{suffix}, .., {inside}",
        lambda path: find(path)[0],
        lambda path: find(path)[1],
        lambda root, name, source: index_one(within(root, name), source),
        identify,
    )


def _tar(path: Root, source: str) -> Iterator[Entry]:
    from sept.data.sources.tars import index_tar

    return index_tar(path, source)


def _zip(path: Root, source: str) -> Iterator[Entry]:
    from sept.data.sources.zips import index_zip

    return index_zip(path, source)


def _parquet(path: Root, source: str) -> Iterator[Entry]:
    from sept.data.sources.parquet import index_parquet

    return index_parquet(path, source)


_ARCHIVES = {
    "webdataset": _archives("tar", _tar, "uncompressed, with images at any depth"),
    "zip": _archives("zip", _zip, "stored or deflated, with images at any depth"),
    "parquet": _archives("parquet", _parquet, "with a column image: {bytes, path}, or bytes"),
}


def _folder() -> Layout:
    from sept.data.sources.digest import digest_listing
    from sept.data.sources.folder import folder_parts, index_part, list_folder, refuse_no_folder

    def root(path: str) -> Path:
        refuse_no_folder(Path(path))
        return Path(path)

    def identify(path: str) -> tuple[str, int]:
        entries = list_folder(Path(path), "")
        return digest_listing(entries, Path(path)), len(entries)

    expected = f"a folder of images at any depth ({ACCEPTED})"
    return Layout(expected, root, lambda path: folder_parts(Path(path)), index_part, identify)  # type: ignore[arg-type]


def _list() -> Layout:
    from sept.data.sources.lists import index_list

    def find(path: str) -> Path:
        if not Path(path).is_file():
            raise DataError(f"{path}: no such list of images")
        return Path(path)

    expected = "a text file of paths, one a line, relative to its folder: n01440764/n01440764_18.JPEG"
    return _listed(expected, find, index_list)


def _yfcc() -> Layout:
    from sept.data.sources.lists import YFCC_IMAGES, YFCC_LISTS, find_yfcc_list, index_yfcc

    expected = f"a folder with {' or '.join(YFCC_LISTS)}, and {YFCC_IMAGES}/<h[:3]>/<h[3:6]>/<h>.jpg"
    return _listed(expected, lambda path: find_yfcc_list(Path(path)), index_yfcc)


def _listed(expected: str, find: Callable[[str], Path], index_one: Callable[..., Iterator[Entry | Absent]]) -> Layout:
    from sept.data.sources.digest import digest_list
    from sept.data.sources.lists import list_parts

    return Layout(
        expected,
        lambda path: find(path).parent,
        lambda path: list_parts(find(path)),
        index_one,
        lambda path: (digest_list(find(path)), 0),
        repeats=True,
    )


def _vectors() -> Layout:
    from sept.data.sources.vectors import EXPECTED, identify_vectors, index_vectors, open_vectors

    return Layout(
        EXPECTED,
        lambda path: open_vectors(path).path.parent,
        lambda path: open_vectors(path).parts(),
        index_vectors,  # type: ignore[arg-type]
        identify_vectors,
        repeats=True,
    )


_LOOSE = {"folder": _folder, "list": _list, "yfcc": _yfcc, "vectors": _vectors}


def layout(kind: str) -> Layout:
    """Of sources of this kind. Raises ConfigError for a kind that there is not."""
    if kind in _ARCHIVES:
        return _ARCHIVES[kind]
    if kind not in _LOOSE:
        raise ConfigError(f"no layout {kind!r} of a source; there are {', '.join(KINDS)}")
    return _LOOSE[kind]()
