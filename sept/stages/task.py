"""The labelled task, and for a drawn one its images."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sept.config import SYNTHETIC_TASKS
from sept.data.annotated import draw_images
from sept.data.detection.boxes import Boxed, DetectionTask
from sept.data.detection.patterns_boxes import read_patterns_boxes
from sept.data.read import read
from sept.data.segmentation.masks import Masked, SegmentationTask
from sept.data.segmentation.patterns_masks import read_patterns_masks, write_masks
from sept.data.shots import draw as draw_shots
from sept.data.tasks import Example, Task, read_imagefolder, write_class_list
from sept.runtime.hardware import Runtime
from sept.store import Artefact

IMAGES, CLASS_LIST = "images", "classes.txt"


def build(
    folder: Path, inputs: Mapping[str, Artefact], spec: Mapping[str, Any], *, runtime: Runtime, place: Mapping[str, Any]
) -> dict[str, Any]:
    """place: kind, path and options of the reader."""
    if spec["kind"] in SYNTHETIC_TASKS:
        from sept.data.patterns import draw_boxed_task, draw_task

        shutil.rmtree(folder / IMAGES, ignore_errors=True)
        draw = draw_task if spec["kind"] == "patterns" else draw_boxed_task
        draw(
            folder / IMAGES,
            spec["domain"],
            spec["train_per_class"],
            spec["test_per_class"],
            spec["side"],
            spec["seed"],
            runtime.threads,
        )
    if spec["kind"] == "patterns_masks":
        write_masks(folder / IMAGES)
    task = _read(folder, place)
    if spec["kind"] == "inat2017":  # the species that were drawn, for task.class_list
        assert isinstance(task, Task)
        write_class_list(task, folder / CLASS_LIST)
    facts = {"classes": task.classes, "train": len(task.train), "test": len(task.test)}
    return facts | ({"skipped": task.skipped} if isinstance(task, DetectionTask) else {})


def open_task(artefact: Artefact, place: Mapping[str, Any]) -> Task:
    """The labelled images behind a task artefact, where they lie now."""
    task = _read(artefact.path, place)
    assert isinstance(task, Task), f"{place['kind']} has boxes or masks"
    return task


def few_shots(artefact: Artefact, place: Mapping[str, Any], shot: Mapping[str, Any], seed: int) -> list[Example]:
    """The labelled images that are used."""
    task = open_task(artefact, place)
    return draw_shots(task.train, shot["per_class"], seed, task.classes, shot["share"] or 1.0)


def test_images(artefact: Artefact, place: Mapping[str, Any]) -> list[Example]:
    """The test images, of a task with boxes or masks too."""
    task = _read(artefact.path, place)
    return task.test if isinstance(task, Task) else _plain(task.test)


def open_boxed(artefact: Artefact, place: Mapping[str, Any]) -> DetectionTask:
    """The annotated images behind a task artefact, where they lie now."""
    task = _read(artefact.path, place)
    assert isinstance(task, DetectionTask), f"{place['kind']} has no boxes"
    return task


def drawn_images(artefact: Artefact, place: Mapping[str, Any], count: int, seed: int) -> list[Boxed]:
    """The annotated images that are used."""
    return draw_images(open_boxed(artefact, place).train, count, seed)


def open_masked(artefact: Artefact, place: Mapping[str, Any]) -> SegmentationTask:
    """The images with masks behind a task artefact, where they lie now."""
    task = _read(artefact.path, place)
    assert isinstance(task, SegmentationTask), f"{place['kind']} has no masks"
    return task


def drawn_examples(artefact: Artefact, place: Mapping[str, Any], count: int, seed: int) -> list[Example]:
    """The images that are used of a task with boxes or masks, without those."""
    task = _read(artefact.path, place)
    assert not isinstance(task, Task), f"{place['kind']} has classes alone"
    return _plain(draw_images([*task.train], count, seed))


def _plain(images: Sequence[Boxed] | Sequence[Masked]) -> list[Example]:
    return [Example(image.id, image.path, 0) for image in images]


def _read(folder: Path, place: Mapping[str, Any]) -> Task | DetectionTask | SegmentationTask:
    if place["kind"] == "patterns":
        return read_imagefolder(folder / IMAGES, test_fraction=0.0, seed=0)  # drawn with a test split
    if place["kind"] == "patterns_boxes":
        return read_patterns_boxes(folder / IMAGES)
    if place["kind"] == "patterns_masks":
        return read_patterns_masks(folder / IMAGES)
    return read(place["kind"], place["path"], place["options"])
