"""The labelled task, and for a drawn one its images."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sept.config import DRAWN
from sept.data.detection.boxes import Boxed, DetectionTask, draw_images
from sept.data.detection.patterns_boxes import read_patterns_boxes
from sept.data.read import read
from sept.data.shots import draw as draw_shots
from sept.data.tasks import Example, Task, read_imagefolder, write_class_list
from sept.machine import Machine
from sept.store import Artefact

IMAGES, CLASS_LIST = "images", "classes.txt"


def build(
    folder: Path, inputs: Mapping[str, Artefact], spec: Mapping[str, Any], *, machine: Machine, place: Mapping[str, Any]
) -> dict[str, Any]:
    """place: kind, path and options of the reader."""
    if spec["kind"] in DRAWN:
        from sept.data.patterns import draw_boxed_task, draw_task

        shutil.rmtree(folder / IMAGES, ignore_errors=True)
        draw = {"patterns": draw_task, "patterns_boxes": draw_boxed_task}[spec["kind"]]
        draw(
            folder / IMAGES,
            spec["domain"],
            spec["train_per_class"],
            spec["test_per_class"],
            spec["side"],
            spec["seed"],
            machine.threads,
        )
    task = _read(folder, place)
    if spec["kind"] == "inat2017":  # the species that were drawn, for task.class_list
        assert isinstance(task, Task)
        write_class_list(task, folder / CLASS_LIST)
    facts = {"classes": task.classes, "train": len(task.train), "test": len(task.test)}
    return facts | ({"skipped": task.skipped} if isinstance(task, DetectionTask) else {})


def open_task(artefact: Artefact, place: Mapping[str, Any]) -> Task:
    """The labelled images behind a task artefact, where they lie now."""
    task = _read(artefact.path, place)
    assert isinstance(task, Task), f"{place['kind']} has boxes"
    return task


def few_shots(artefact: Artefact, place: Mapping[str, Any], shot: Mapping[str, Any], seed: int) -> list[Example]:
    """The labelled images that are used."""
    task = open_task(artefact, place)
    return draw_shots(task.train, shot["per_class"], seed, task.classes, shot["share"] or 1.0)


def test_images(artefact: Artefact, place: Mapping[str, Any]) -> list[Example]:
    """The test images, of a task with boxes too."""
    task = _read(artefact.path, place)
    if isinstance(task, DetectionTask):
        return [Example(image.id, image.path, 0) for image in task.test]
    return task.test


def open_boxed(artefact: Artefact, place: Mapping[str, Any]) -> DetectionTask:
    """The annotated images behind a task artefact, where they lie now."""
    task = _read(artefact.path, place)
    assert isinstance(task, DetectionTask), f"{place['kind']} has no boxes"
    return task


def drawn_images(artefact: Artefact, place: Mapping[str, Any], count: int, seed: int) -> list[Boxed]:
    """The annotated images that are used."""
    return draw_images(open_boxed(artefact, place).train, count, seed)


def _read(folder: Path, place: Mapping[str, Any]) -> Task | DetectionTask:
    if place["kind"] == "patterns":
        return read_imagefolder(folder / IMAGES, test_fraction=0.0, seed=0)  # drawn with a test split
    if place["kind"] == "patterns_boxes":
        return read_patterns_boxes(folder / IMAGES)
    return read(place["kind"], place["path"], place["options"])
