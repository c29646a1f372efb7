"""Checks that /dev/shm can hold the batches that data workers pass through it.

If it cannot, torch's workers die of SIGBUS in the middle of a run, or wait for ever; Docker's default is 64 MB.
"""

import os
from collections.abc import Callable, Iterable
from math import ceil
from pathlib import Path

from sept.config import Experiment
from sept.data.settings import SYNTHETIC_TASKS
from sept.errors import ConfigError
from sept.runtime.hardware import Runtime
from sept.store import Step
from sept.transfer.recipes import Classify, Detect, Probe, Segmentation

FOLDER = Path("/dev/shm")
PREFETCHED = 2  # batches that a worker prefetches: torch's default
HELD = 2  # batches that the consuming process holds: the one in use and the next
SLACK = 1.1  # whole pages, targets, and other programs' use
TEST_BATCH = 256  # of a classifier's tests; as in sept.data.labelled, which imports torch
RGB = 3  # bytes per pixel
GIB = 2**30
STAGES = ("retriever", "features", "queries", "pretrain", "finetune", "detect", "segment")  # that may have workers


def free_bytes(folder: Path = FOLDER) -> int | None:
    """Free bytes of the shared memory; None on systems without this folder, which have no such limit."""
    if not folder.is_dir():
        return None
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def require(
    e: Experiment, runtime: Runtime, steps: Iterable[Step], free: Callable[[], int | None] = free_bytes
) -> None:
    """ConfigError when the data workers of one of these steps, which are to be built, would overfill it."""
    held = {step.stage: batch_bytes(e, runtime, step.stage) for step in steps if _has_workers(e, step)}
    if not runtime.workers or not any(held.values()):
        return
    stage = max(held, key=lambda name: held[name])
    needed, there = needed_bytes(held[stage], runtime.workers), free()
    if there is None or there >= needed:
        return
    fitting = max(0, int((there / SLACK / held[stage] - HELD) / PREFETCHED))
    raise ConfigError(
        f"hardware.workers={runtime.workers}: in {stage} they hold up to {needed / GIB:.2g} GiB of batches in "
        f"{FOLDER}, where {there / GIB:.2g} GiB are free: start the container with "
        f"`docker run --shm-size={ceil(needed / GIB)}g` or `--ipc=host`, or set hardware.workers={fitting}"
    )


def _has_workers(e: Experiment, step: Step) -> bool:
    """Whether a step reads more than one batch; a single batch is read without workers (sept.data.loading)."""
    embeds = step.stage in ("features", "queries")
    if embeds and e.of_vectors:
        return False
    return step.stage in STAGES and not (embeds and step.estimate["images"] <= e.retriever.batch_size)


def needed_bytes(batches: int, workers: int) -> int:
    """batches: bytes of one batch for each process that reads at the same time."""
    return int(SLACK * batches * (PREFETCHED * workers + HELD))


def batch_bytes(e: Experiment, runtime: Runtime, stage: str) -> int:
    """Bytes that a stage reads at a time: one batch in all, or one per process. 0 if other machines read it.

    Images are passed as uint8. A self-supervised batch is split over the devices; for embedding each device has its
    own.
    """
    match stage:
        case "pretrain":
            return e.pretrain.batch_size * e.pretrain.view_bytes(e.backbone)
        case "retriever":
            return (
                0
                if e.retriever.weights is not None
                else e.retriever.train.batch_size * e.retriever.train.view_bytes(e.retriever.backbone)
            )
        case "features" if e.engine.name == "ray":
            return 0
        case "features":
            return runtime.devices * e.retriever.batch_size * _pixels(e.retriever.resolved_preprocess().crop)
        case "queries":
            return e.retriever.batch_size * _pixels(e.retriever.resolved_preprocess().crop)
    return _fine_tuning(e)


def _fine_tuning(e: Experiment) -> int:
    """Bytes of a training batch and of a test batch: tests run while the next training batches are prefetched."""
    recipe, drawn = e.finetune, e.task.side if e.task.kind in SYNTHETIC_TASKS else None
    match recipe:
        case Probe():
            return TEST_BATCH * _pixels(recipe.side)
        case Classify():
            return (recipe.batch_size + TEST_BATCH) * _pixels(recipe.side)
        case Detect():
            whole = _pixels(drawn) if drawn else RGB * recipe.test_short_side * recipe.long_side  # as large as it reads
            return 2 * recipe.batch_size * whole
        case Segmentation():
            whole = _pixels(drawn) if drawn else RGB * recipe.side * recipe.long_side
            with_masks = (RGB + 1) / RGB
            return ceil(recipe.batch_size * with_masks * (_pixels(recipe.side) + whole))
    raise AssertionError(f"no batch for {recipe}")


def _pixels(side: int) -> int:
    """Bytes of a square image."""
    return RGB * side**2
