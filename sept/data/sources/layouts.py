"""The layouts a source can have, by the name of its kind: where it lies, what it is cut into, what is in each part."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sept.data.names import ACCEPTED
from sept.data.sources.files import Absent, Entry, Root, is_url, within
from sept.errors import ConfigError, DataError

Kind = Literal["folder", "webdataset", "zip", "parquet", "list", "yfcc"]
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
        from sept.data.sources.find import find_archives

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


_LOOSE = {"folder": _folder, "list": _list, "yfcc": _yfcc}


def layout(kind: str) -> Layout:
    """Of sources of this kind. Raises ConfigError for a kind that there is not."""
    if kind in _ARCHIVES:
        return _ARCHIVES[kind]
    if kind not in _LOOSE:
        raise ConfigError(f"no layout {kind!r} of a source; there are {', '.join(KINDS)}")
    return _LOOSE[kind]()
