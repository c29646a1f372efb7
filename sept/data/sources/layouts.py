"""The layouts a source can have, by the name of its kind: where it lies, what it is cut into, what is in each part."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sept.data.names import ACCEPTED
from sept.data.sources import lists, vectors
from sept.data.sources.digest import digest_archives, digest_list, digest_listing
from sept.data.sources.entry import Absent, Entry
from sept.data.sources.files import Root, is_url, within
from sept.data.sources.find import find_archives
from sept.data.sources.folder import folder_parts, index_part, list_folder, refuse_no_folder
from sept.data.sources.parquet import index_parquet
from sept.data.sources.tars import index_tar
from sept.data.sources.zips import index_zip
from sept.errors import ConfigError, DataError

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
    return LAYOUTS[kind].index(root, part, source)


def identify(kind: str, path: str) -> tuple[str, int]:
    """Digest of what the source holds, and its number of images (0: not known before it is scanned).

    Equal after the source was moved elsewhere, different after it was changed at a place that is looked at: the ends
    of files, and the whole of a list. Raises DataError when nothing is there.
    """
    return _of(kind, path, lambda layout: layout.identify(path))


def _of(kind: str, path: str, work: Callable[[Layout], Any]) -> Any:
    """What `work` finds; a DataError of a source that is not there shows the layout expected."""
    if kind not in LAYOUTS:
        raise ConfigError(f"no layout {kind!r} of a source; there are {', '.join(KINDS)}")
    layout = LAYOUTS[kind]
    if is_url(path) and kind not in _ARCHIVES:
        raise ConfigError(f"{path}: a URL names {', '.join(_ARCHIVES)} files; copy a {kind} source to this machine")
    try:
        return work(layout)
    except DataError as error:
        raise DataError(f"{error}; expected: {layout.expected}") from error


# Archives


def _archives(kind: str, find: Callable[[Root, str], Iterator[Entry]], suffix: str, inside: str) -> Layout:
    return Layout(
        f"a folder or URL of a-000.{suffix}, a-001.{suffix}, .., {inside}",
        lambda path: find_archives(path, suffix)[0],
        lambda path: find_archives(path, suffix)[1],
        lambda root, name, source: find(within(root, name), source),
        lambda path: (digest_archives(*find_archives(path, suffix)), 0),
    )


_ARCHIVES = {
    "webdataset": _archives("webdataset", index_tar, "tar", "uncompressed, with images at any depth"),
    "zip": _archives("zip", index_zip, "zip", "stored or deflated, with images at any depth"),
    "parquet": _archives("parquet", index_parquet, "parquet", "with a column image: {bytes, path}, or bytes"),
}


# Loose files


def _identify_folder(path: str) -> tuple[str, int]:
    entries = list_folder(Path(path), "")
    return digest_listing(entries, Path(path)), len(entries)


def _folder(path: str) -> Path:
    refuse_no_folder(Path(path))
    return Path(path)


def _list(path: str) -> Path:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such list of images")
    return Path(path)


LAYOUTS: dict[str, Layout] = {
    "folder": Layout(
        f"a folder of images at any depth ({ACCEPTED})",
        _folder,
        lambda path: folder_parts(Path(path)),
        index_part,  # type: ignore[arg-type]
        _identify_folder,
    ),
    **_ARCHIVES,
    "list": Layout(
        "a text file of paths, one a line, relative to its folder: n01440764/n01440764_18.JPEG",
        lambda path: _list(path).parent,
        lambda path: lists.list_parts(_list(path)),
        lists.index_list,  # type: ignore[arg-type]
        lambda path: (digest_list(_list(path)), 0),
        repeats=True,
    ),
    "vectors": Layout(
        vectors.EXPECTED,
        lambda path: vectors.open_vectors(path).path.parent,
        lambda path: vectors.open_vectors(path).parts(),
        vectors.index_vectors,  # type: ignore[arg-type]
        vectors.identify_vectors,
        repeats=True,
    ),
    "yfcc": Layout(
        f"a folder with {' or '.join(lists.YFCC_LISTS)}, and {lists.YFCC_IMAGES}/<h[:3]>/<h[3:6]>/<h>.jpg",
        lambda path: lists.find_yfcc_list(Path(path)).parent,
        lambda path: lists.list_parts(lists.find_yfcc_list(Path(path))),
        lists.index_yfcc,  # type: ignore[arg-type]
        lambda path: (digest_list(lists.find_yfcc_list(Path(path))), 0),
        repeats=True,
    ),
}
