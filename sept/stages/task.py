"""The labelled task; for the embedded world also its images."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from sept.data.annotated import draw_images, draw_shots
from sept.data.locate import Location
from sept.data.read import OPTIONS, read
from sept.data.settings import OWN_TASKS, SYNTHETIC_TASKS, Query, Shot
from sept.data.settings import Task as TaskSettings
from sept.data.tasks.task import Example, Task
from sept.errors import DataError
from sept.runtime.hardware import Runtime
from sept.stages import VERSIONS
from sept.stages.inputs import Presence
from sept.store.step import Artefact, Step

if TYPE_CHECKING:
    from sept.data.detection.boxes import Boxed, DetectionTask
    from sept.data.segmentation.masks import Masked, SegmentationTask

IMAGES, CLASS_LIST = "images", "classes.txt"
MEASURED = 20  # training images, spread evenly, whose size is looked at


@dataclass(frozen=True)
class TaskSpec:
    """listing: digest of its classes, splits and images; null if a plan does not find it, which then tells it by
    name."""

    kind: str
    listing: Any
    name: str | None = None


@dataclass(frozen=True)
class SyntheticTaskSpec:
    """A generated task: number of images per class of a domain, and pixels per side."""

    kind: str
    domain: str
    train_per_class: int
    test_per_class: int
    side: int
    seed: int


def locate(t: TaskSettings) -> Location:
    """Where the task's images are and how they are read."""
    options = tuple((name, getattr(t, name)) for name in OPTIONS.get(t.kind, ()))
    return Location(t.kind, t.path, options=options)


def step(t: TaskSettings, runtime: Runtime, presence: Presence) -> Step:
    location = locate(t)
    told = f"{t.name} in {t.path}" if t.kind in OWN_TASKS else t.name
    if t.kind in SYNTHETIC_TASKS:
        spec, estimate, about = _drawn(t)
    else:
        what = f"task {t.path}" if t.kind in OWN_TASKS else f"task={t.name}"
        spec, estimate, about = presence.find(what, partial(_listed, t, location), _published(t))
    return Step(
        "task",
        VERSIONS["task"],
        spec,
        {},
        partial(build, spec=spec, location=location, runtime=runtime),
        slug=t.name,
        estimate=estimate,
        about=about and f"task {told}: {about}",
    )


Described = tuple[TaskSpec | SyntheticTaskSpec, dict[str, float], str]
"""Spec, estimate and description of a task."""


def _published(t: TaskSettings) -> Described:
    """For a task that is not on this machine; the plan lists it as missing."""
    from sept.paper import published

    size = published(t.name)
    name = t.path if t.kind in OWN_TASKS else t.name
    return TaskSpec(t.kind, None, name), {"classes": size.classes, "images": size.images}, ""


def _drawn(t: TaskSettings) -> Described:
    """For a task of the embedded world."""
    from sept.data.patterns.domains import classes

    assert t.domain is not None
    assert t.train_per_class is not None
    assert t.test_per_class is not None
    assert t.side is not None
    spec = SyntheticTaskSpec(t.kind, t.domain, t.train_per_class, t.test_per_class, t.side, t.seed)
    count = classes(t.domain)
    each = f"images of each: {t.train_per_class:,} to train on, {t.test_per_class:,} to test on"
    images = count * t.train_per_class
    estimate: dict[str, float] = {"classes": count, "per_class": t.train_per_class, "images": images}
    return spec, estimate, f"{count:,} classes of {t.domain}, {each}, drawn"


def _listed(t: TaskSettings, location: Location) -> Described:
    """For a task on disk."""
    from sept.data.about import about_task

    listed = _read_listing(location)
    estimate: dict[str, float] = {"classes": len(listed.classes), "images": len(listed.train)}
    return TaskSpec(t.kind, listed.identity), estimate, about_task(listed)


def usual_side(t: TaskSettings) -> int | None:
    """The median of the shorter sides, in pixels, of a few training images of an own task of classes; None of another
    task, or if none can be read."""
    return _usual_side(locate(t)) if t.kind in OWN_TASKS else None


@cache  # asked for every cell of a sweep
def _usual_side(location: Location) -> int | None:
    from sept.data.labelled import read_image

    listed, sides = _read_listing(location), []
    assert isinstance(listed, Task)
    for example in listed.train[:: max(1, len(listed.train) // MEASURED)][:MEASURED]:
        with suppress(DataError):
            sides.append(min(read_image(example).shape[:2]))
    return int(median(sides)) if sides else None


def shots(t: TaskSettings, shot: Shot, query: Query, seed: int, task: Step) -> int:
    """The number of training images used (or boxes, for queries by instance); a class with too few is refused here,
    before any work."""
    if not isinstance(task.spec, TaskSpec) or task.spec.listing is None:
        return _expected_shots(t, shot, query, task)
    listed = _read_listing(locate(t))
    if isinstance(listed, Task):
        return len(draw_shots(listed.train, shot.per_class, seed, listed.classes, shot.share or 1.0))
    assert t.images is not None
    drawn = draw_images([*listed.train], t.images, seed)
    if query.name != "instance":
        return len(drawn)
    from sept.data.detection.boxes import instances

    return len(instances(drawn))


def _expected_shots(t: TaskSettings, shot: Shot, query: Query, task: Step) -> int:
    if t.images is not None:
        from sept.paper import published

        return int(t.images * (published(t.name).boxes_per_image if query.name == "instance" else 1))
    share = (shot.share or 1.0) * task.estimate["images"]
    return int(share if shot.per_class is None else task.estimate["classes"] * shot.per_class)


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    *,
    spec: TaskSpec | SyntheticTaskSpec,
    location: Location,
    runtime: Runtime,
) -> dict[str, Any]:
    if isinstance(spec, SyntheticTaskSpec):
        shutil.rmtree(folder / IMAGES, ignore_errors=True)
        if spec.kind == "patterns":
            from sept.data.patterns.drawing import draw_task as draw
        else:
            from sept.data.patterns.boxed import draw_boxed_task as draw
        sizes = (spec.train_per_class, spec.test_per_class, spec.side, spec.seed)
        draw(folder / IMAGES, spec.domain, *sizes, runtime.threads)
    if spec.kind == "patterns_masks":
        from sept.data.segmentation.patterns_masks import write_masks

        write_masks(folder / IMAGES)
    task = _read(folder, location)
    if spec.kind == "inat2017":  # the species that were drawn, for task.class_list
        from sept.data.tasks.inat_classes import write_class_list

        assert isinstance(task, Task)
        write_class_list(task, folder / CLASS_LIST)
    facts = {"classes": task.classes, "train": len(task.train), "test": len(task.test)}
    return facts | ({"skipped": task.skipped} if hasattr(task, "skipped") else {})


def open_task(artefact: Artefact, location: Location) -> Task:
    """The labelled images of a task artefact, at their present location."""
    task = _read(artefact.path, location)
    assert isinstance(task, Task), f"{location.kind} has boxes or masks"
    return task


def few_shots(artefact: Artefact, location: Location, shot: Shot, seed: int) -> list[Example]:
    """The labelled images that are used."""
    task = open_task(artefact, location)
    return draw_shots(task.train, shot.per_class, seed, task.classes, shot.share or 1.0)


def test_images(artefact: Artefact, location: Location) -> list[Example]:
    """The test images, also for a task with boxes or masks."""
    task = _read(artefact.path, location)
    return task.test if isinstance(task, Task) else _plain(task.test)


def train_images(artefact: Artefact, location: Location) -> list[Example]:
    """All training images, whatever `shot` says; also for a task with boxes or masks."""
    task = _read(artefact.path, location)
    return task.train if isinstance(task, Task) else _plain(task.train)


def open_boxed(artefact: Artefact, location: Location) -> "DetectionTask":
    """The annotated images of a task artefact, at their present location."""
    from sept.data.detection.boxes import DetectionTask

    task = _read(artefact.path, location)
    assert isinstance(task, DetectionTask), f"{location.kind} has no boxes"
    return task


def drawn_images(artefact: Artefact, location: Location, count: int, seed: int) -> "list[Boxed]":
    """The annotated images that are used."""
    return draw_images(open_boxed(artefact, location).train, count, seed)


def open_masked(artefact: Artefact, location: Location) -> "SegmentationTask":
    """The images with masks of a task artefact, at their present location."""
    from sept.data.segmentation.masks import SegmentationTask

    task = _read(artefact.path, location)
    assert isinstance(task, SegmentationTask), f"{location.kind} has no masks"
    return task


def drawn_examples(artefact: Artefact, location: Location, count: int, seed: int) -> list[Example]:
    """The images used of a task with boxes or masks, without the boxes or masks."""
    task = _read(artefact.path, location)
    assert not isinstance(task, Task), f"{location.kind} has classes alone"
    return _plain(draw_images([*task.train], count, seed))


def _plain(images: "Sequence[Boxed] | Sequence[Masked]") -> list[Example]:
    return [Example(image.id, image.path, 0) for image in images]


def _read(folder: Path, location: Location) -> "Task | DetectionTask | SegmentationTask":
    if location.kind == "patterns":
        from sept.data.tasks.imagefolder import read_imagefolder

        return read_imagefolder(folder / IMAGES, test_fraction=0.0, seed=0)  # drawn with a test split
    if location.kind == "patterns_boxes":
        from sept.data.detection.patterns_boxes import read_patterns_boxes

        return read_patterns_boxes(folder / IMAGES)
    if location.kind == "patterns_masks":
        from sept.data.segmentation.patterns_masks import read_patterns_masks

        return read_patterns_masks(folder / IMAGES)
    return _read_listing(location)


def _read_listing(location: Location) -> "Task | DetectionTask | SegmentationTask":
    """Classes and examples of a task on disk."""
    assert location.path is not None
    return read(location.kind, location.path, location.options)
