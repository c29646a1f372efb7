"""The labelled task, and for `patterns` its images, drawn into class folders."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sept.data.tasks import Task, read_imagefolder
from sept.machine import Machine
from sept.store import Artefact

IMAGES = "images"


def build(
    folder: Path, inputs: Mapping[str, Artefact], spec: Mapping[str, Any], *, machine: Machine, path: str | None
) -> dict[str, Any]:
    if spec["kind"] == "patterns":
        from sept.data.patterns import draw_task

        shutil.rmtree(folder / IMAGES, ignore_errors=True)
        draw_task(
            folder / IMAGES,
            spec["domain"],
            spec["train_per_class"],
            spec["test_per_class"],
            spec["side"],
            spec["seed"],
            machine.threads,
        )
    task = _read(folder, spec, path)
    return {"classes": task.classes, "train": len(task.train), "test": len(task.test)}


def open_task(artefact: Artefact, path: str | None) -> Task:
    """The examples behind a task artefact; `path` is where they lie now, nothing for `patterns`."""
    return _read(artefact.path, artefact.manifest["spec"], path)


def _read(folder: Path, spec: Mapping[str, Any], path: str | None) -> Task:
    root = folder / IMAGES if path is None else Path(path)
    return read_imagefolder(root, spec.get("test_fraction", 0.0), spec["seed"])
