"""ADE20K as its scene parsing challenge has it: trained on 20,210 images, tested on 2,000, 150 classes.

In a mask's file 0 is everything else, to be ignored, and 1 to 150 are the classes of objectInfo150.txt.
"""

from pathlib import Path

from sept.data.annotated import by_id
from sept.data.listed import read_lines, require, stems
from sept.data.names import check_classes
from sept.data.segmentation.masks import Masked, SegmentationTask
from sept.data.sources.packed import AnyPath, find, reference
from sept.errors import DataError

FOLDER = "ADEChallengeData2016"
IMAGES, IMAGE_END = "images", ".jpg"
MASKS, MASK_END = "annotations", ".png"
NAMES, SCENES = "objectInfo150.txt", "sceneCategories.txt"
CLASSES = 150
SPLITS = ("training", "validation")
ARCHIVE = f"{FOLDER}.zip"
UNPACK = f"unpack {ARCHIVE} there, or put it there as it is"


def read_ade20k(root: Path) -> SegmentationTask:
    """ADE20K from `root`, which is ADEChallengeData2016 or holds it or its zip; ids are relative to that folder.

    Files are compared with each other and, where it is there, with sceneCategories.txt, which names every image; no
    image or mask is opened. Raises DataError for what is missing.
    """
    base = find(root, FOLDER, ARCHIVE)
    classes = _read_names(base / NAMES)
    names = {split: _read_split(base, split) for split in SPLITS}
    if (base / SCENES).exists():
        _check_scenes(base / SCENES, set().union(*names.values()))
    train, test = (by_id(_masked(base, split, name) for name in names[split]) for split in SPLITS)
    return SegmentationTask(classes, train, test)


def _read_names(path: AnyPath) -> list[str]:
    """The last column, after a line of titles; the first one counts from 1."""
    rows = [line.split("\t") for line in read_lines(path, UNPACK)[1:]]
    numbers, names = [row[0].strip() for row in rows], [row[-1].strip() for row in rows]
    if numbers != [str(number) for number in range(1, CLASSES + 1)] or len(set(names)) < CLASSES:
        raise DataError(f"{path}: no list of {CLASSES} classes, numbered from 1, each of a name of its own; {UNPACK}")
    check_classes(path, names)
    return names


def _read_split(base: AnyPath, split: str) -> set[str]:
    images, masks = base / IMAGES / split, base / MASKS / split
    names = stems(images, IMAGE_END, UNPACK)
    require(masks, MASK_END, names, "its image is there", UNPACK)
    require(images, IMAGE_END, stems(masks, MASK_END, UNPACK), "its mask is there", UNPACK)
    return names


def _check_scenes(path: AnyPath, found: set[str]) -> None:
    listed = {line.split()[0] for line in read_lines(path, UNPACK)}
    if missing := listed - found:
        raise DataError(
            f"{path}: {len(missing)} of its {len(listed)} images are missing, the first is {min(missing)!r}; {UNPACK}"
        )


def _masked(base: AnyPath, split: str, name: str) -> Masked:
    image_id = f"{IMAGES}/{split}/{name}{IMAGE_END}"
    mask = base / MASKS / split / f"{name}{MASK_END}"
    return Masked(image_id, reference(base / image_id), reference(mask), first=1)
