"""LogoDet-3K: 100 of its 3,000 logos by seed, and a split of our own; the release has none.

Two logos of one name in two super-classes are two classes: a class is "<Super>/<Brand>".
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sept.data.annotated import PURPOSE, by_id
from sept.data.detection.annotation import read_boxed, shown
from sept.data.detection.boxes import Boxed, DetectionTask
from sept.data.listed import names_in
from sept.data.names import check_classes, ends_with, is_hidden
from sept.data.sources.packed import AnyPath, find
from sept.data.tasks.task import random_key
from sept.errors import ConfigError, DataError
from sept.store.disk import storage_errors, write_json

FOLDER, ARCHIVE = "LogoDet-3K", "LogoDet-3K.zip"
LAYOUT = "LogoDet-3K/<Super>/<Brand>/<n>.jpg with <n>.xml"
IMAGE, ANNOTATION = ".jpg", ".xml"
CLASSES = 100
TRAIN = 1000
"""SEPT: 100 classes, 1,000 training images in all."""
TEST_SHARE = 5
"""At least one in this many images of a class is for the test."""
KEYS = ("classes", "train", "test")


class _Found:
    """What was read of one class: its usable images, boxes cut at an edge, and a line for each image left out."""

    def __init__(self) -> None:
        self.images: list[Boxed] = []
        self.clipped = 0
        self.skipped: list[str] = []


def read_logodet(root: Path, seed: int, classes: int = CLASSES, train: int = TRAIN) -> DetectionTask:
    """`classes` logos and `train` training images in all from `root`, which is LogoDet-3K or holds it or its zip.

    Classes of the smallest lots are taken that have enough images for an even share of `train` and a fifth for the
    test; the images of a class are given out by lot, its share to train on and all others to test on. Images whose
    annotation is broken are skipped and named, before they are counted: missing, no XML, a box without area, another
    brand's name. Raises DataError for a folder that is not the data set, or has too few such classes.
    """
    if not 0 < classes <= train:
        raise ConfigError(f"{train} training images for {classes} classes: each class needs at least one of them")
    top = _top(root)
    brands = sorted(_brands(top), key=lambda name: random_key(seed, PURPOSE, name))
    chosen: dict[str, _Found] = {}
    left_out: list[str] = []
    for name in brands:
        found = _read_brand(top, name)
        left_out += found.skipped
        if _for_training(len(found.images)) >= -(-train // classes):
            chosen[name] = found
        if len(chosen) == classes:
            check_classes(top, sorted(chosen))
            return _split(chosen, seed, train, left_out)
    raise DataError(
        f"{top}: {len(chosen)} of {len(brands)} brands have the {-(-train // classes)} training images of {train} in "
        f"all, and a fifth for the test; {classes} are needed: unpack all of LogoDet-3K there"
    )


def _for_training(images: int) -> int:
    """How many images of a class may be trained on."""
    return images - -(-images // TEST_SHARE)


def _split(chosen: dict[str, _Found], seed: int, train: int, skipped: list[str]) -> DetectionTask:
    """Classes in the order of their lots: the first ones train on one image more where `train` is not a multiple."""
    names = sorted(chosen, key=os.fsencode)
    trained: list[Boxed] = []
    tested: list[Boxed] = []
    for place, (name, found) in enumerate(chosen.items()):
        share = train // len(chosen) + (place < train % len(chosen))
        images = sorted(found.images, key=lambda image: random_key(seed, name, image.id))
        label = names.index(name)
        for split, part in ((trained, images[:share]), (tested, images[share:])):
            split.extend(image._replace(labels=image.labels + label) for image in part)
    clipped = sum(found.clipped for found in chosen.values())
    return DetectionTask(names, by_id(trained), by_id(tested), clipped, skipped)


def _top(root: Path) -> AnyPath:
    top = find(root, FOLDER, ARCHIVE)
    if not top.is_dir():
        raise DataError(f"{root}: no such folder; {LAYOUT} is needed there")
    return top


def _brands(top: AnyPath) -> Iterable[str]:
    names = [f"{above}/{name}" for above in _folders(top) for name in _folders(top / above)]
    if not names:
        raise DataError(f"{top}: has no brands; {LAYOUT} is needed there")
    return names


def _folders(path: AnyPath) -> list[str]:
    names = [name for name in _listed(path) if (path / name).is_dir()]
    for name in names:
        if not name.isprintable():
            raise DataError(f"{path}: the folder name {name!a} cannot name a class; rename it")
    return names


def _listed(path: AnyPath) -> list[str]:
    """Names in a folder without the hidden ones, in any order."""
    try:
        return [name for name in names_in(path) if not is_hidden(name)]
    except OSError as error:
        raise DataError(f"{path}: cannot be listed ({error.strerror}); {LAYOUT} is needed there") from error


def _read_brand(top: AnyPath, name: str) -> _Found:
    """The images of a class, all labelled 0."""
    found = _Found()
    files = [file for file in _listed(top / name) if ends_with(file, IMAGE, ANNOTATION)]
    for stem in sorted({os.path.splitext(file)[0] for file in files}, key=os.fsencode):
        try:
            if not stem.isprintable():
                raise DataError(f"{top / name}: the file name {stem!a} is not UTF-8 or has control characters")
            image, clipped = _read_image(top, name, f"{name}/{stem}{IMAGE}")
        except DataError as error:
            found.skipped.append(str(error))
        else:
            found.images.append(image)
            found.clipped += clipped
    return found


def _read_image(top: AnyPath, name: str, image_id: str) -> tuple[Boxed, int]:
    brand = _plain(name.split("/")[1])

    def label(found: str) -> int:
        if _plain(found) != brand:
            raise ValueError(f"names {shown(found)} in the folder of {name!r}")
        return 0

    path = top / f"{image_id.removesuffix(IMAGE)}{ANNOTATION}"
    image, clipped = read_boxed(image_id, top / image_id, path, label)
    if not len(image.boxes):
        raise DataError(f"{path}: has no box; restore this file from its archive")
    return image, clipped


def _plain(name: str) -> str:
    """Folders and annotations write a brand alike but for case and the kind of space."""
    return "_".join(name.casefold().replace("_", " ").split())


def write_split(task: DetectionTask, path: Path) -> None:
    """The classes and the ids of both splits as JSON, for `read_split`."""
    ids = {"train": [image.id for image in task.train], "test": [image.id for image in task.test]}
    with storage_errors(path):
        write_json(path, {"classes": task.classes, **ids})


def read_split(root: Path, path: Path) -> DetectionTask:
    """The task of a file that `write_split` wrote, or of one made like it.

    Raises DataError for a file that is none, or names an image twice, outside its classes or outside `root`, and for
    an image that is missing or whose annotation is broken: here none is skipped.
    """
    top = _top(root)
    classes, *splits = (_names(path, name) for name in KEYS)
    _check_split(path, classes, splits)
    clipped = 0
    read: list[list[Boxed]] = [[], []]
    for images, ids in zip(read, splits, strict=True):
        for image_id in ids:
            name = image_id.rpartition("/")[0]
            image, count = _read_image(top, name, image_id)
            images.append(image._replace(labels=image.labels + classes.index(name)))
            clipped += count
    return DetectionTask(classes, by_id(read[0]), by_id(read[1]), clipped)


def _names(path: Path, key: str) -> list[str]:
    try:
        names: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: no split can be read there ({str(error).splitlines()[0]})") from error
    names = names.get(key) if isinstance(names, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: {key!r} is no list of names; a split has {', '.join(KEYS)}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: {key!r} holds {shown(twice)} twice; remove one")
    return names


def _check_split(path: Path, classes: list[str], splits: list[list[str]]) -> None:
    """Ids are "<Super>/<Brand>/<n>.jpg" of a class that is listed, so none leads out of the data set."""
    for name in classes:
        if len(name.split("/")) != 2 or any(part.strip(".") == "" or "\\" in part for part in name.split("/")):
            raise DataError(f"{path}: the class {shown(name)} is not written <Super>/<Brand>")
    check_classes(path, classes)
    known = set(classes)
    for image_id in (image_id for ids in splits for image_id in ids):
        name, _, file = image_id.rpartition("/")
        if name not in known or not file.endswith(IMAGE) or is_hidden(file) or not image_id.isprintable():
            raise DataError(f"{path}: {shown(image_id)} is no <Super>/<Brand>/<n>{IMAGE} of the classes listed")
    if both := set(splits[0]) & set(splits[1]):
        raise DataError(f"{path}: {len(both)} images are in train and in test, the first is {shown(min(both))}")
    for split, ids in zip(KEYS[1:], splits, strict=True):
        if bare := known - {image_id.rpartition("/")[0] for image_id in ids}:
            raise DataError(f"{path}: {split!r} has no image of the class {shown(min(bare))}")
