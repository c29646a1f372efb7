"""A labelled task from where it lies, whatever its kind; read once a process, as a sweep asks for it often."""

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sept.errors import ConfigError
from sept.runtime.named import load

if TYPE_CHECKING:
    from sept.data.detection.boxes import DetectionTask
    from sept.data.segmentation.masks import SegmentationTask
    from sept.data.tasks.task import Task

SYNTHETIC_TASKS = ("test_fraction", "seed")
OPTIONS = {
    "imagefolder": SYNTHETIC_TASKS,
    "csv": SYNTHETIC_TASKS,
    "parquet": SYNTHETIC_TASKS,
    "inat2017": ("subset", "seed", "class_list"),
    "logodet": ("seed",),
}
"""Settings of a task, beside its path, that its reader takes."""

READERS = {
    "imagefolder": "sept.data.tasks.imagefolder:read_imagefolder",
    "csv": "sept.data.tasks.csv_list:read",
    "parquet": "sept.data.tasks.parquet_table:read",
    "flowers102": "sept.data.tasks.flowers102:read",
    "stanford_cars": "sept.data.tasks.stanford_cars:read",
    "food101": "sept.data.tasks.food101:read",
    "places365": "sept.data.tasks.places365:read",
    "inat2017": "sept.data.tasks.inat2017:read",
}
"""Of tasks of classes, "module:function" by kind of layout, imported when one is read. Options beside the path:
imagefolder, csv and parquet take `test_fraction` and `seed`; inat2017 takes `subset`, `seed` and maybe `class_list` and
`classes`; the others take none."""
ANNOTATED = {
    "voc": "sept.data.detection.voc:read_voc",
    "cityscapes": "sept.data.detection.cityscapes:read_cityscapes",
    "logodet": "sept.data.detection.logodet:read_logodet",
    "voc_masks": "sept.data.segmentation.voc:read_voc_masks",
    "ade20k": "sept.data.segmentation.ade20k:read_ade20k",
}
"""The same of tasks of boxes and masks."""

Options = tuple[tuple[str, Any], ...]


@lru_cache(maxsize=8)
def read(kind: str, path: str, options: Options) -> "Task | DetectionTask | SegmentationTask":
    """The classes and examples, checked. Raises DataError for what is missing or damaged."""
    given = dict(options)
    if kind == "cityscapes":
        given["threads"] = os.cpu_count() or 1
    if kind in ANNOTATED:
        return load(ANNOTATED[kind])(Path(path), **given)
    if given.get("class_list") is not None:
        given["class_list"] = Path(given["class_list"])
    return read_task(kind, Path(path), **given)


def read_task(kind: str, root: Path, **options: Any) -> "Task":
    """The task at `root` (for csv, the file itself) in the layout `kind`. Raises DataError for data that make none."""
    if kind not in READERS:
        raise ConfigError(f"task.kind={kind}: no such layout; choose one of {', '.join(READERS)}")
    return load(READERS[kind])(root, **options)
