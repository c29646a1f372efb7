"""Pascal VOC 2012's segmentation: trained on `train` (1,464 images), tested on `val` (1,449), 21 classes.

Without the further masks of SBD, which other sources draw on. In a mask's file 0 is background, 1 to 20 are the classes
in the order of their names, and 255 is the rim around objects and what is hard to tell.
"""

from pathlib import Path

from sept.data.annotated import by_id
from sept.data.detection.voc import ARCHIVES, CLASSES, KIT, read_names
from sept.data.listed import require
from sept.data.segmentation.masks import Masked, SegmentationTask
from sept.data.sources.packed import AnyPath, find, reference
from sept.errors import DataError

YEAR = "VOC2012"
IMAGES, IMAGE_END = "JPEGImages", ".jpg"
MASKS, MASK_END = "SegmentationClass", ".png"
ARCHIVE = ARCHIVES[YEAR, "trainval"]
UNPACK = f"unpack {ARCHIVE} there, or put it there as it is"


def read_voc_masks(root: Path) -> SegmentationTask:
    """VOC 2012 from `root`, which is VOCdevkit or holds it, or the official tar; ids are relative to VOCdevkit.

    Lists and files are compared, no image or mask is opened. Raises DataError for what is missing and for lists that
    contradict each other (one was cut).
    """
    kit = find(root, KIT, ARCHIVE, _list_path("train"))
    if not (kit / YEAR).is_dir():
        raise DataError(f"{kit}: has no folder {YEAR}; {UNPACK}")
    splits = {name: _read_list(kit, name) for name in ("train", "val")}
    _check_lists(kit, set(splits["train"]), set(splits["val"]))
    for name, listed in splits.items():
        for folder, end in ((IMAGES, IMAGE_END), (MASKS, MASK_END)):
            require(kit / YEAR / folder, end, listed, f"{name}.txt lists it", UNPACK)
    train, test = (by_id(_masked(kit, name) for name in listed) for listed in splits.values())
    return SegmentationTask(["background", *CLASSES], train, test)


def _list_path(name: str) -> str:
    return f"{YEAR}/ImageSets/Segmentation/{name}.txt"


def _read_list(kit: AnyPath, name: str) -> list[str]:
    return read_names(kit / _list_path(name), UNPACK)


def _check_lists(kit: AnyPath, train: set[str], val: set[str]) -> None:
    """No image is in both; where trainval lies beside them it is the two together, so a list that was cut shows."""
    if both := train & val:
        path = kit / _list_path("val")
        raise DataError(f"{path}: {len(both)} images are also in train.txt, the first is {min(both)!r}; {UNPACK}")
    path = kit / _list_path("trainval")
    if path.exists() and (differing := (train | val) ^ set(_read_list(kit, "trainval"))):
        raise DataError(
            f"{path}: differs from train.txt and val.txt together by {len(differing)} images, the first is "
            f"{min(differing)!r}; a list was cut; {UNPACK}"
        )


def _masked(kit: AnyPath, name: str) -> Masked:
    image_id = f"{YEAR}/{IMAGES}/{name}{IMAGE_END}"
    return Masked(image_id, reference(kit / image_id), reference(kit / YEAR / MASKS / f"{name}{MASK_END}"))
