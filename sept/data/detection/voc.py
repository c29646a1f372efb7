"""Pascal VOC: trained on 2007 and 2012 trainval (5,011 and 11,540 images), tested on 2007 test (4,952)."""

import re
from collections.abc import Mapping
from pathlib import Path

from sept.data.annotated import by_id
from sept.data.detection.annotation import read_boxed, shown
from sept.data.detection.boxes import Boxed, DetectionTask
from sept.data.listed import read_lines, require, stems
from sept.data.sources.packed import AnyPath, find
from sept.errors import DataError

CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
KIT = "VOCdevkit"
TRAIN = [("VOC2007", "trainval"), ("VOC2012", "trainval")]
TEST = [("VOC2007", "test")]
ARCHIVES = {
    ("VOC2007", "trainval"): "VOCtrainval_06-Nov-2007.tar",
    ("VOC2007", "test"): "VOCtest_06-Nov-2007.tar",
    ("VOC2012", "trainval"): "VOCtrainval_11-May-2012.tar",
}
HALVES = ("train", "val")
UNPACK = f"unpack {', '.join(ARCHIVES.values())} there, or put them there as they are"
LIST_ID = re.compile(r"\w[\w .-]*")
"""What a list may name: a bare file name, no path."""


def read_voc(root: Path) -> DetectionTask:
    """VOC07+12 from `root`, which is VOCdevkit or holds it, or the official tars; ids are relative to VOCdevkit.

    Lists and files are compared before any annotation is read. Raises DataError for what is missing, for lists that
    contradict each other (one was cut), and for an annotation that is damaged, of an unknown class, or has a box
    without area; boxes over an edge are cut there and counted. `difficult` objects are to be ignored.
    """
    kits = {part: find(root, KIT, archive, _list_path(*part)) for part, archive in ARCHIVES.items()}
    for (year, _), kit in kits.items():
        if not (kit / year).is_dir():
            raise DataError(f"{kit}: has no folder {year}; {UNPACK}")
    listed = {part: _read_list(kit, *part) for part, kit in kits.items()}
    for year, name in TRAIN:
        _check_halves(kits[year, name], year, listed[year, name])
    _check_2007(kits, listed["VOC2007", "trainval"], listed["VOC2007", "test"])
    for (year, name), ids in listed.items():
        _check_files(kits[year, name], year, name, ids)
    train, test = (
        [_read_image(kits[part], part[0], name) for part in parts for name in listed[part]] for parts in (TRAIN, TEST)
    )
    clipped = sum(count for _, count in train + test)
    return DetectionTask(CLASSES, by_id(image for image, _ in train), by_id(image for image, _ in test), clipped)


def _list_path(year: str, name: str) -> str:
    return f"{year}/ImageSets/Main/{name}.txt"


def _read_list(kit: AnyPath, year: str, name: str) -> list[str]:
    return read_names(kit / _list_path(year, name), UNPACK)


def read_names(path: AnyPath, unpack: str) -> list[str]:
    """Names of images in one of VOC's lists, in its order. Raises DataError for what is none, or is there twice."""
    seen: set[str] = set()
    names = read_lines(path, unpack)
    for name in names:
        if not LIST_ID.fullmatch(name):
            raise DataError(f"{path}: {shown(name)} is no name of an image; {unpack}")
        if name in seen:
            raise DataError(f"{path}: lists {shown(name)} again; {unpack}")
        seen.add(name)
    return names


def _check_halves(kit: AnyPath, year: str, trainval: list[str]) -> None:
    """trainval is train and val together; where those lie beside it, a list cut between two lines shows."""
    path = kit / _list_path(year, "trainval")
    if not all((kit / _list_path(year, half)).exists() for half in HALVES):
        return
    halves = {name for half in HALVES for name in _read_list(kit, year, half)}
    if differing := halves ^ set(trainval):
        raise DataError(
            f"{path}: differs from train.txt and val.txt together by {len(differing)} images, the first is "
            f"{shown(min(differing))}; a list was cut: {UNPACK}"
        )


def _check_2007(kits: Mapping[tuple[str, str], AnyPath], trainval: list[str], test: list[str]) -> None:
    """The annotations of 2007 are those of trainval and test and no others, so a cut test list shows, too."""
    path = kits["VOC2007", "test"] / _list_path("VOC2007", "test")
    if both := set(trainval) & set(test):
        raise DataError(f"{path}: {len(both)} images are also in trainval.txt, the first is {min(both)!r}; {UNPACK}")
    of_2007 = (kit / "VOC2007" / "Annotations" for (year, _), kit in kits.items() if year == "VOC2007")
    annotated = set().union(*(stems(folder, ".xml", UNPACK) for folder in of_2007))
    if rest := annotated - set(trainval) - set(test):
        raise DataError(
            f"{path}: {len(rest)} annotated images are neither there nor in trainval.txt, the first is {min(rest)!r}; "
            f"a list was cut: {UNPACK}"
        )


def _check_files(kit: AnyPath, year: str, name: str, ids: list[str]) -> None:
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        require(kit / year / folder, suffix, ids, f"{name}.txt lists it", UNPACK)


def _read_image(kit: AnyPath, year: str, name: str) -> tuple[Boxed, int]:
    image_id = f"{year}/JPEGImages/{name}.jpg"
    return read_boxed(image_id, kit / image_id, kit / year / "Annotations" / f"{name}.xml", _label)


def _label(name: str) -> int:
    try:
        return CLASSES.index(name)
    except ValueError:
        raise ValueError(f"{shown(name)} is none of VOC's {len(CLASSES)} classes") from None
