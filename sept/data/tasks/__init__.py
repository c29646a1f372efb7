"""Labelled tasks read from disk, one file a layout. Nothing here needs torch: plans read tasks too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sept.data.tasks import csv_list, flowers102, food101, inat2017, parquet_table, places365, stanford_cars
from sept.data.tasks.imagefolder import read_imagefolder
from sept.data.tasks.inat_classes import write_class_list
from sept.data.tasks.layout import Layout
from sept.data.tasks.task import Example, Task, digest, random_key
from sept.errors import ConfigError

READERS: dict[str, Callable[..., Task]] = {
    "imagefolder": read_imagefolder,
    "csv": csv_list.read,
    "parquet": parquet_table.read,
    "flowers102": flowers102.read,
    "stanford_cars": stanford_cars.read,
    "food101": food101.read,
    "places365": places365.read,
    "inat2017": inat2017.read,
}
"""By kind of layout. Options beside the path: imagefolder, csv and parquet take `test_fraction` and `seed`; inat2017
takes `subset`, `seed` and maybe `class_list` and `classes`; the others take none."""

LAYOUTS: dict[str, Layout] = {
    "flowers102": flowers102.LAYOUT,
    "stanford_cars": stanford_cars.LAYOUT,
    "food101": food101.LAYOUT,
    "places365": places365.LAYOUT,
    "inat2017": inat2017.LAYOUT,
}
"""How the official data sets lie on disk, by kind."""

__all__ = [
    "LAYOUTS",
    "READERS",
    "Example",
    "Task",
    "digest",
    "random_key",
    "read_imagefolder",
    "read_task",
    "write_class_list",
]


def read_task(kind: str, root: Path, **options: Any) -> Task:
    """The task at `root` (for csv, the file itself) in the layout `kind`. Raises DataError for data that make none."""
    if kind not in READERS:
        raise ConfigError(f"task.kind={kind}: no such layout; choose one of {', '.join(READERS)}")
    return READERS[kind](root, **options)
