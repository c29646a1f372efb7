"""Whether /dev/shm holds the batches that data workers hand over through it.

Where it does not, torch's workers die of SIGBUS in the middle of a run, or wait for ever; Docker gives 64 MB by itself.
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
PREFETCHED = 2  # batches that a worker makes ahead: torch's default
HELD = 2  # that the reading process has in hand: the one in use and the next
SLACK = 1.1  # whole pages, targets, and what other programs take meanwhile
TEST_BATCH = 256  # of a classifier's tests; sept.data.labelled, which brings torch
RGB = 3  # bytes of a pixel
GIB = 2**30
STAGES = ("retriever", "features", "queries", "pretrain", "finetune", "detect", "segment")  # that may have workers


def free_bytes(folder: Path = FOLDER) -> int | None:
    """Free bytes of the shared memory; None where a system has no such folder, and no such limit."""
    if not folder.is_dir():
        return None
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def require(
    e: Experiment, runtime: Runtime, steps: Iterable[Step], free: Callable[[], int | None] = free_bytes
) -> None:
    """ConfigError when the data workers of one of these steps, those that are to be built, would fill it."""
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
    """Whether a step has more to read at a time than one batch, which needs no worker (sept.data.loading)."""
    embeds = step.stage in ("features", "queries")
    if embeds and e.of_vectors:
        return False
    return step.stage in STAGES and not (embeds and step.estimate["images"] <= e.retriever.batch_size)


def needed_bytes(batches: int, workers: int) -> int:
    """batches: bytes of one batch of every process that reads at a time."""
    return int(SLACK * batches * (PREFETCHED * workers + HELD))


def batch_bytes(e: Experiment, runtime: Runtime, stage: str) -> int:
    """Bytes of what a stage reads at a time: a batch in all, or one for each process. 0 where other machines read it.

    Images travel as uint8. A self-supervised batch is shared by the devices; each device embeds batches of its own.
    """
    match stage:
        case "pretrain":
            return min(e.pretrain.batch_size, e.budget.images) * e.pretrain.view_bytes(e.backbone)
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
    """Bytes of a training batch and of a test batch: tests run while the next training batches are read."""
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
