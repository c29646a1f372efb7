"""Cityscapes, fine annotations: trained on `train` (2,975 images), tested on `val` (500); boxes of 8 classes.

A box is the tight one around the visible pixels of an instance, as in the official instance benchmark.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sept.data.annotated import by_id
from sept.data.detection.boxes import Boxed, DetectionTask
from sept.data.detection.frames import Size, read_frame
from sept.data.detection.polygons import INSTANCED, PER_CLASS, draw_polygons
from sept.data.images import DECODER_ERRORS
from sept.data.listed import ending, names_in
from sept.data.names import is_hidden
from sept.data.sources.packed import AnyPath, find, reference
from sept.errors import DataError
from sept.runtime.progress import progress

CLASSES = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
IMAGES, IMAGE_END = "leftImg8bit", "_leftImg8bit.png"
TRUTH, MAP_END, POLYGONS_END = "gtFine", "_gtFine_instanceIds.png", "_gtFine_polygons.json"
ARCHIVES = {IMAGES: "leftImg8bit_trainvaltest.zip", TRUTH: "gtFine_trainvaltest.zip"}
UNPACK = f"unpack {' and '.join(ARCHIVES.values())} there, or put them there as they are"
MAP_MODES = ("I;16", "I;16B", "I")  # 16 bits; the names differ between versions of Pillow
_VALUES = 1 << 16


class _Files(NamedTuple):
    """One image and its annotations; `polygons` may be missing where `instances` exists."""

    id: str
    image: AnyPath
    instances: AnyPath
    polygons: AnyPath


def read_cityscapes(root: Path, threads: int = 1) -> DetectionTask:
    """Cityscapes from `root`, which holds leftImg8bit and gtFine, or their official zips.

    Every image has *_instanceIds.png, or, where that is missing, *_polygons.json: it is drawn as the official tool
    draws it, which gives the same boxes. Groups are crowds, to be ignored. All files are looked for before the first
    is read. Raises DataError for what is missing, damaged, of another size than its image, or has an unknown class.
    """
    tops = {folder: _top(root, folder) for folder in ARCHIVES}
    splits = [_find(tops, "train"), _find(tops, "val")]
    files = [found for split in splits for found in split]
    with ThreadPoolExecutor(threads) as pool, progress("Cityscapes annotations", len(files)) as advance:
        read: dict[str, Boxed] = {}
        for image in pool.map(_read, files):  # a failure drops what is still in the queue
            read[image.id] = image
            advance(1)
    train, test = (by_id(read[found.id] for found in split) for split in splits)
    return DetectionTask(CLASSES, train, test)


def _top(root: Path, folder: str) -> AnyPath:
    found = find(root, folder, ARCHIVES[folder])
    return root / folder if found == root else found


def _find(tops: Mapping[str, AnyPath], split: str) -> list[_Files]:
    """Files of a split, after a look that each image has an annotation and each annotation an image."""
    images = _names(tops[IMAGES] / split, (IMAGE_END,))
    truth = _names(tops[TRUTH] / split, (MAP_END, POLYGONS_END))
    for here, there, ends in ((images, truth, f"*{MAP_END} (or *{POLYGONS_END})"), (truth, images, f"*{IMAGE_END}")):
        if alone := sorted(here - there, key=os.fsencode):
            folder = tops[TRUTH if here is images else IMAGES] / split
            raise DataError(f"{folder}: {alone[0]}{ends[1:]} is missing, of {len(alone)} such; {UNPACK}")
    return [
        _Files(
            f"{IMAGES}/{split}/{name}{IMAGE_END}",
            tops[IMAGES] / split / f"{name}{IMAGE_END}",
            tops[TRUTH] / split / f"{name}{MAP_END}",
            tops[TRUTH] / split / f"{name}{POLYGONS_END}",
        )
        for name in images
    ]


def _names(folder: AnyPath, ends: tuple[str, ...]) -> set[str]:
    """ "<city>/<name>" of the files below `folder` with one of the ends, without that end."""
    found = set()
    try:
        for city in folder.iterdir():
            if city.is_dir() and not is_hidden(city.name):
                for name in ending(city, names_in(city), *ends):
                    end = next(end for end in ends if name.endswith(end))
                    found.add(f"{city.name}/{name.removesuffix(end)}")
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); {UNPACK}") from error
    if not found:
        raise DataError(f"{folder}: holds no <city>/*{ends[0]}; {UNPACK}")
    for name in found:
        if not name.isprintable():
            raise DataError(f"{folder}: the name {name!a} is not UTF-8 or has control characters; rename it")
    return found


def _read(files: _Files) -> Boxed:
    size = read_frame(files.image).size
    path = files.instances if files.instances.exists() else files.polygons
    values = _read_map(path, size) if path == files.instances else draw_polygons(path, size)
    try:
        return Boxed(files.id, reference(files.image), *map_boxes(values))
    except ValueError as error:
        raise DataError(f"{path}: {error}; restore this file from gtFine_trainvaltest.zip") from error


def _read_map(path: AnyPath, size: Size) -> NDArray[np.uint16]:
    """(H, W) of an instanceIds.png. Its size is compared before its pixels are read."""
    try:
        with path.open("rb") as file, Image.open(file, formats=("PNG",)) as image:
            if image.size != size or image.mode not in MAP_MODES:
                raise ValueError(f"{image.size} pixels of mode {image.mode}, not {size} of 16 bits")
            return np.asarray(image).astype(np.uint16)
    except DECODER_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: no map of instances ({reason}); restore it from gtFine_trainvaltest.zip") from error


def map_boxes(values: NDArray[np.uint16]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """Boxes (n, 4), labels (n,) and crowd flags (n,) of a map of instances (H, W), in the order of their values.

    Raises ValueError for a value that no map has.
    """
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=_VALUES))
    owners = np.where(present < PER_CLASS, present, present // PER_CLASS)
    instanced = list(INSTANCED.values())
    known = np.where(present < PER_CLASS, present <= max(instanced), np.isin(owners, instanced))
    if not known.all():
        raise ValueError(f"holds the value {present[~known][0]}, which is neither a class nor an instance")
    evaluated = np.array([INSTANCED[name] for name in CLASSES])
    ours = np.isin(owners, evaluated)
    kept, owners = present[ours], owners[ours]
    number = np.zeros(_VALUES, np.uint8 if len(kept) < 256 else np.uint16)  # the small table is quicker to scan
    number[kept] = np.arange(1, len(kept) + 1)
    slices = ndimage.find_objects(np.take(number, values), len(kept))
    corners = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in slices]
    boxes = np.array(corners, np.float32).reshape(-1, 4)
    return boxes, np.searchsorted(evaluated, owners), kept < PER_CLASS
