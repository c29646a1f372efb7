"""Pascal VOC: trained on 2007 and 2012 trainval (5,011 and 11,540 images), tested on 2007 test (4,952)."""

import re
from pathlib import Path

from sept.data.annotated import by_id
from sept.data.detection.annotation import read_boxed, shown
from sept.data.detection.boxes import Boxed, DetectionTask
from sept.data.listed import read_lines, require, stems
from sept.errors import DataError

CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
KIT = "VOCdevkit"
YEARS = ("VOC2007", "VOC2012")
TRAIN = [(year, "trainval") for year in YEARS]
TEST = [("VOC2007", "test")]
HALVES = ("train", "val")
UNPACK = "unpack VOCtrainval_06-Nov-2007, VOCtest_06-Nov-2007 and VOCtrainval_11-May-2012 there"
LIST_ID = re.compile(r"\w[\w .-]*")
"""What a list may name: a bare file name, no path."""


def read_voc(root: Path) -> DetectionTask:
    """VOC07+12 from `root`, which is VOCdevkit or holds it; ids are relative to VOCdevkit.

    Lists and files are compared before any annotation is read. Raises DataError for what is missing, for lists that
    contradict each other (one was cut), and for an annotation that is damaged, of an unknown class, or has a box
    without area; boxes over an edge are cut there and counted. `difficult` objects are to be ignored.
    """
    kit = root / KIT if (root / KIT).is_dir() else root
    if missing := [year for year in YEARS if not (kit / year).is_dir()]:
        raise DataError(f"{kit}: has no folder {missing[0]}; {UNPACK}")
    listed = {part: _read_list(kit, *part) for part in (*TRAIN, *TEST)}
    for year, name in TRAIN:
        _check_halves(kit, year, listed[year, name])
    _check_2007(kit, listed["VOC2007", "trainval"], listed["VOC2007", "test"])
    for (year, name), ids in listed.items():
        _check_files(kit, year, name, ids)
    train, test = (
        [_read_image(kit, part[0], name) for part in parts for name in listed[part]] for parts in (TRAIN, TEST)
    )
    clipped = sum(count for _, count in train + test)
    return DetectionTask(CLASSES, by_id(image for image, _ in train), by_id(image for image, _ in test), clipped)


def _list_path(kit: Path, year: str, name: str) -> Path:
    return kit / year / "ImageSets" / "Main" / f"{name}.txt"


def _read_list(kit: Path, year: str, name: str) -> list[str]:
    return read_names(_list_path(kit, year, name), UNPACK)


def read_names(path: Path, unpack: str) -> list[str]:
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


def _check_halves(kit: Path, year: str, trainval: list[str]) -> None:
    """trainval is train and val together; where those lie beside it, a list cut between two lines shows."""
    path = _list_path(kit, year, "trainval")
    if not all(_list_path(kit, year, half).exists() for half in HALVES):
        return
    halves = {name for half in HALVES for name in _read_list(kit, year, half)}
    if differing := halves ^ set(trainval):
        raise DataError(
            f"{path}: differs from train.txt and val.txt together by {len(differing)} images, the first is "
            f"{shown(min(differing))}; a list was cut: {UNPACK}"
        )


def _check_2007(kit: Path, trainval: list[str], test: list[str]) -> None:
    """The annotations of 2007 are those of trainval and test and no others, so a cut test list shows, too."""
    path = _list_path(kit, "VOC2007", "test")
    if both := set(trainval) & set(test):
        raise DataError(f"{path}: {len(both)} images are also in trainval.txt, the first is {min(both)!r}; {UNPACK}")
    if rest := stems(kit / "VOC2007" / "Annotations", ".xml", UNPACK) - set(trainval) - set(test):
        raise DataError(
            f"{path}: {len(rest)} annotated images are neither there nor in trainval.txt, the first is {min(rest)!r}; "
            f"a list was cut: {UNPACK}"
        )


def _check_files(kit: Path, year: str, name: str, ids: list[str]) -> None:
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        require(kit / year / folder, suffix, ids, f"{name}.txt lists it", UNPACK)


def _read_image(kit: Path, year: str, name: str) -> tuple[Boxed, int]:
    image_id = f"{year}/JPEGImages/{name}.jpg"
    return read_boxed(image_id, kit / image_id, kit / year / "Annotations" / f"{name}.xml", _label)


def _label(name: str) -> int:
    try:
        return CLASSES.index(name)
    except ValueError:
        raise ValueError(f"{shown(name)} is none of VOC's {len(CLASSES)} classes") from None
