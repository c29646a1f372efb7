"""A labelled task from where it lies, whatever its kind; read once a process, as a sweep asks for it often."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from sept.data.detection.boxes import DetectionTask
from sept.data.segmentation.masks import SegmentationTask
from sept.data.tasks import Task, read_task

SYNTHETIC_TASKS = ("test_fraction", "seed")
OPTIONS = {
    "imagefolder": SYNTHETIC_TASKS,
    "csv": SYNTHETIC_TASKS,
    "parquet": SYNTHETIC_TASKS,
    "inat2017": ("subset", "seed", "class_list"),
    "logodet": ("seed",),
}
"""Settings of a task, beside its path, that its reader takes."""

Options = tuple[tuple[str, Any], ...]


@lru_cache(maxsize=8)
def read(kind: str, path: str, options: Options) -> Task | DetectionTask | SegmentationTask:
    """The classes and examples, checked. Raises DataError for what is missing or damaged."""
    given = dict(options)
    match kind:
        case "voc":
            from sept.data.detection.voc import read_voc

            return read_voc(Path(path))
        case "cityscapes":
            from sept.data.detection.cityscapes import read_cityscapes

            return read_cityscapes(Path(path), threads=os.cpu_count() or 1)
        case "logodet":
            from sept.data.detection.logodet import read_logodet

            return read_logodet(Path(path), **given)
        case "voc_masks":
            from sept.data.segmentation.voc import read_voc_masks

            return read_voc_masks(Path(path))
        case "ade20k":
            from sept.data.segmentation.ade20k import read_ade20k

            return read_ade20k(Path(path))
    if given.get("class_list") is not None:
        given["class_list"] = Path(given["class_list"])
    return read_task(kind, Path(path), **given)
