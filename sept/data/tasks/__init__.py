"""Labelled tasks read from disk, one file a layout."""

from sept.data.tasks.imagefolder import read_imagefolder
from sept.data.tasks.task import Example, Task, digest, lot

__all__ = ["Example", "Task", "digest", "lot", "read_imagefolder"]
