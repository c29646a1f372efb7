"""What a task and a source of a pool are, in a few words for the plan; from listings that are there already."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from sept.data import locate
from sept.data.detection.boxes import DetectionTask
from sept.data.segmentation.masks import SegmentationTask
from sept.data.settings import VECTORS
from sept.data.sources.layouts import parts
from sept.data.tasks.task import Example, Task

SHOWN = 3
"""Names of classes."""
FILES = {"webdataset": "tar", "zip": "zip", "parquet": "parquet"}
"""What a source of archives is made of."""


def about_task(task: Task | DetectionTask | SegmentationTask) -> str:
    """Classes by number and first names, and the images of each split: of each class, where an image has one."""
    names = ", ".join(task.classes[:SHOWN]) + (", .." if len(task.classes) > SHOWN else "")
    text = f"{_count(len(task.classes), 'class', 'classes')} ({names}), "
    if isinstance(task, Task):
        train, test = (_each(examples, len(task.classes)) for examples in (task.train, task.test))
        return "; ".join([f"{text}images of each: {train} to train on, {test} to test on", *task.notes])
    text += f"{_count(len(task.train), 'image')} to train on, {len(task.test):,} to test on"
    skipped = len(task.skipped) if isinstance(task, DetectionTask) else 0
    return text + (f"; {_count(skipped, 'image')} with broken annotations left out" if skipped else "")


@lru_cache(maxsize=64)  # a sweep asks for it often
def about_source(kind: str, path: str) -> str:
    """Its images, where their number is known without a scan, or its archives."""
    images = locate.identify(kind, path)[1]
    if kind == VECTORS:
        from sept.data.sources.vectors import open_vectors

        return f"{images:,} vectors of {open_vectors(path).dim:,} numbers in {path}, each scaled to unit length"
    if images:
        return f"{_count(images, 'image')} in {path}"
    if kind in FILES:
        return f"{_count(len(parts(kind, path)), f'{FILES[kind]} file')} of {path}, images not counted yet"
    return f"the images that are listed in {path}, not counted yet"


def _each(examples: Sequence[Example], classes: int) -> str:
    """The number that every class has, or the least and the greatest."""
    counts = Counter(example.label for example in examples)
    least, most = (choose(counts[label] for label in range(classes)) for choose in (min, max))
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"
