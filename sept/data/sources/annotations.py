"""Labels and captions of a source's images, wherever its layout keeps them; read of chosen images, a shard at a time.

Where they are is told by one word, their place:

    folder            the name of the folder that an image lies in, in any layout
    cls, txt, ..      the text beside an image in its tar or zip, in a member of the image's name with this suffix
    json.KEY          a value of the JSON object beside it
    label, text, ..   a column of parquet files; "caption,text" is the first of these that there is
    drawn             what an image of the embedded world was drawn as

Listings, features and selections never read them, so they are no part of what identifies a pool.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from sept.data.names import ends_with, plain, tidy
from sept.data.settings import SYNTHETIC_POOLS
from sept.data.sources import layouts
from sept.data.sources.files import Entry, Root, name_of, within
from sept.data.sources.reader import Reader
from sept.errors import DataError, reason
from sept.runtime.threads import in_order

LABELS, CAPTIONS = "labels", "captions"  # what there may be
AUTO, FROM_LABELS = "auto", "from_labels"  # values of a setting that are no places
FOLDER, DRAWN = "folder", "drawn"
JSON = "json."
PLACES = {  # by kind of source, where nothing else is said
    LABELS: {
        **dict.fromkeys(("folder", "list", "zip"), FOLDER),
        **dict.fromkeys(SYNTHETIC_POOLS, DRAWN),
        "webdataset": "cls",
        "parquet": "label",
    },
    CAPTIONS: {"webdataset": "txt", "zip": "txt", "parquet": "caption,text"},
}
BESIDE, COLUMNS = ("webdataset", "zip"), "parquet"  # kinds
DRAWINGS = "labels.csv"  # of the embedded world: shard, member, domain, label
NEGATIVE = re.compile(r"-\d+")
SCENE = " scene"  # after the domain of an image that shows a place of it
LOOKED_AT = 200  # members of a tar: samples are whole, so what none of these has, none has

Names = tuple[str, ...]  # labels or captions of an image; without any: it has none


def place(kind: str, what: str, setting: str | None) -> str | None:
    """Where a source of this kind keeps its LABELS or CAPTIONS, by the pool's setting; None: nowhere."""
    return PLACES[what].get(kind) if setting == AUTO else setting


def lacks(kind: str, path: str, place: str | None) -> str | None:
    """Why the source at `path` has none, as far as its layout, its folders and its first shard tell; None where it
    seems to have some. Raises DataError for a source that is missing or damaged."""
    if place is None:
        return f"a source of kind {kind} keeps none"
    if place == FOLDER:
        return _flat(kind, path)
    if kind == COLUMNS:
        from sept.data.sources.parquet import columns

        first = within(layouts.root(kind, path), layouts.parts(kind, path)[0])
        there = columns(first)
        return None if {*place.split(",")} & {*there} else f"{first} has the columns {', '.join(there)}"
    if kind in BESIDE:
        return _bare(kind, path, _ending(place))
    return None if place == DRAWN and kind in SYNTHETIC_POOLS else f"nothing beside images of kind {kind} is read"


def _flat(kind: str, path: str) -> str | None:
    if kind != "folder" or any(part.below or any(map(_is_folder, part.names)) for part in layouts.parts(kind, path)):
        return None
    return f"{path} holds no folders"


def _is_folder(name: str) -> bool:
    return name.endswith("/")


def _bare(kind: str, path: str, ending: str) -> str | None:
    first = within(layouts.root(kind, path), layouts.parts(kind, path)[0])
    members = _index(kind)(first, "", lambda name: True)
    found = (entry.key for entry in (islice(members, LOOKED_AT) if kind == "webdataset" else members))
    bare = not any(ends_with(key, ending) for key in found)
    return f"{name_of(first)} has no {ending} beside its images" if bare else None


def read(kind: str, root: Root, place: str, images: Sequence[Entry], threads: int) -> list[Names]:
    """The names of each image, () where there are none or they are no text.

    Shards are read by `threads` at a time. Raises DataError for a shard that is damaged, or lacks the column.
    """
    shards: dict[str, list[int]] = {}
    for number, image in enumerate(images):
        shards.setdefault(image.shard, []).append(number)
    work = partial(_shard_reader(kind, place), root)
    found: list[Names] = [()] * len(images)
    asked = ((shard, [images[number] for number in numbers]) for shard, numbers in shards.items())
    for numbers, names in zip(shards.values(), in_order(lambda each: work(*each), asked, threads), strict=True):
        for number, each in zip(numbers, names, strict=True):
            found[number] = each
    return found


def _shard_reader(kind: str, place: str) -> Callable[[Root, str, Sequence[Entry]], list[Names]]:
    """Gives the names of images in one shard."""
    if place == FOLDER:
        return lambda root, shard, images: [_folder(_member(image, kind)) for image in images]
    if place == DRAWN:
        return _drawn
    if kind == COLUMNS:
        return partial(_column, place.split(","))
    return partial(_beside, kind, place)


def _member(image: Entry, kind: str) -> str:
    """Its name within the archive, or below the source's root."""
    return plain(image.key.partition("/")[2] if kind in BESIDE or kind in SYNTHETIC_POOLS else image.key)


def _folder(name: str) -> Names:
    return _texts(name.rpartition("/")[0].rpartition("/")[2])


def _drawn(root: Root, shard: str, images: Sequence[Entry]) -> list[Names]:
    """What is drawn in scenes is called like the place's own images; junk is one class."""
    assert isinstance(root, Path)
    try:
        with open(root / DRAWINGS, newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["shard"] == shard]
    except (OSError, KeyError) as error:
        raise DataError(f"{root / DRAWINGS}: cannot be read ({reason(error)})") from error
    names = {row["member"]: f"{row['domain'].removesuffix(SCENE)}-{int(row['label']):02d}" for row in rows}
    return [_texts(names.get(image.key.partition("/")[2])) for image in images]


def _column(wanted: Sequence[str], root: Root, shard: str, images: Sequence[Entry]) -> list[Names]:
    """Numbers are called as the file's Hugging Face metadata say; negative ones, as of a test set, are none."""
    from sept.data.sources.parquet import read_column

    path = within(root, shard)
    values, names = read_column(path, wanted)
    try:
        found = values.take(pa.array([image.offset for image in images], pa.int64())).to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{path}: has no such rows ({reason(error)}); it changed since it was listed") from error

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(each) for each in value]
        if not isinstance(value, int) or names is None:
            return None if isinstance(value, int) and value < 0 else value
        if value >= len(names):
            raise DataError(f"{path}: has the label {value}, and names for {len(names)} classes")
        return names[value] if value >= 0 else None

    return [_texts(named(value)) for value in found]


def _beside(kind: str, place: str, root: Root, shard: str, images: Sequence[Entry]) -> list[Names]:
    """An image a/b.c.jpg is named by a/b.c.txt or, as WebDataset has it, whose samples end at the first dot, by
    a/b.txt."""
    ending = _ending(place)
    there: dict[str, Entry] = {}
    for each in _index(kind)(within(root, shard), "", lambda name: ends_with(name, ending)):
        there[_member(each, kind)[: -len(ending)]] = each
    reader, found = Reader(root), []
    for image in images:
        folder, slash, last = _member(image, kind).rpartition("/")
        beside = there.get(folder + slash + last.rpartition(".")[0]) or there.get(
            folder + slash + last.partition(".")[0]
        )
        data = reader.read(beside.shard, beside.offset, beside.size) if beside else b""
        found.append(_decoded(data, place.removeprefix(JSON) if place.startswith(JSON) else None))
    reader.close()
    return found


def _ending(place: str) -> str:
    return f".{'json' if place.startswith(JSON) else place}".lower()


def _index(kind: str) -> Callable[[Root, str, Callable[[str], bool]], Iterator[Entry]]:
    if kind == "zip":
        from sept.data.sources.zips import index_zip

        return index_zip
    from sept.data.sources.tars import index_tar

    return index_tar


def _decoded(data: bytes, key: str | None) -> Names:
    """The text of a member, or the value of a key in it; negative numbers, as of images without a label, are none."""
    try:
        text = data.decode("utf-8-sig")
        held = {key: text} if key is None else json.loads(text)
    except ValueError:  # of either
        return ()
    found = _texts(held.get(key)) if isinstance(held, dict) else ()
    return tuple(each for each in found if not NEGATIVE.fullmatch(each))


def _texts(value: Any) -> Names:
    """One text, whole number, or list of these; blank ones are none. In one line."""
    several = value if isinstance(value, list) else [value]
    texts = (str(each) for each in several if isinstance(each, str | int) and not isinstance(each, bool))
    return tuple(told for each in texts if (told := tidy(" ".join(each.split()))))
