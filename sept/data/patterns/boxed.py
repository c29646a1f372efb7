"""Writes a detection task of the embedded world: scenes as JPEGs, their boards as boxes in VOC's layout and XML."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from sept.data.detection.patterns_boxes import ANNOTATIONS, CLASSES, IMAGES, LISTS
from sept.data.patterns.domains import classes
from sept.data.patterns.drawing import SPACE, TEST, TRAIN, check_target, in_processes, jpeg
from sept.data.patterns.scenes import Board, draw_scene

SPLITS = ("trainval", "test")


def class_name(domain: str, label: int) -> str:
    return f"{domain}-{label:02d}"


def draw_boxed_task(
    folder: Path, domain: str, train_per_class: int, test_per_class: int, side: int, seed: int, workers: int
) -> dict[str, int]:
    """Draws a task into `folder`: JPEGImages/<id>.jpg, Annotations/<id>.xml, ImageSets/Main/{trainval,test}.txt and
    classes.txt, the names of the classes in their order.

    There are so many scenes a class whose first board shows it; what else hangs there comes as it may. The boards of
    other domains have no box. Returns the images of each split. Raises ConfigError for a domain that is no task.
    """
    check_target(domain)
    for home in (IMAGES, ANNOTATIONS, LISTS):
        (folder / home).mkdir(parents=True, exist_ok=True)
    jobs, counts = [], {}
    for split, space, each in zip(SPLITS, (TRAIN, TEST), (train_per_class, test_per_class), strict=True):
        drawn = [(n, label) for n in range(each) for label in range(classes(domain))]
        names = [f"{split}_{n:04d}_{label:02d}" for n, label in drawn]
        jobs += [
            (folder, name, domain, label, side, seed, space * SPACE + n)
            for name, (n, label) in zip(names, drawn, strict=True)
        ]
        (folder / LISTS / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        counts[split] = len(names)
    (folder / CLASSES).write_text("".join(f"{class_name(domain, label)}\n" for label in range(classes(domain))))
    in_processes(_write_scene, jobs, workers)
    return {"train": counts["trainval"], "test": counts["test"]}


def _write_scene(job: tuple[Path, str, str, int, int, int, int]) -> None:
    folder, name, domain, label, side, seed, index = job
    pixels, boards = draw_scene(domain, label, side, seed, index)
    (folder / IMAGES / f"{name}.jpg").write_bytes(jpeg(pixels))
    boxed = [board for board in boards if board.domain == domain]
    (folder / ANNOTATIONS / f"{name}.xml").write_bytes(annotation(f"{name}.jpg", side, boxed))


def annotation(name: str, side: int, boards: Sequence[Board]) -> bytes:
    """VOC's XML of an image of side x side pixels: corners count from 1 and belong to the box."""
    root = ElementTree.Element("annotation")
    _texts(root, folder=IMAGES, filename=name)
    _texts(ElementTree.SubElement(root, "size"), width=side, height=side, depth=3)
    for board in boards:
        found = ElementTree.SubElement(root, "object")
        _texts(found, name=class_name(board.domain, board.label), difficult=0)
        left, top, right, bottom = board.box
        _texts(ElementTree.SubElement(found, "bndbox"), xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root) + b"\n"


def _texts(parent: ElementTree.Element, **values: object) -> None:
    for tag, value in values.items():
        ElementTree.SubElement(parent, tag).text = str(value)
