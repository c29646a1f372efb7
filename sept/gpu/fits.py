"""One step of every learner at full size: whether it fits, and its measured peak next to the calculated one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from sept.backbones import Backbone
from sept.gpu import micro
from sept.gpu.card import Card
from sept.gpu.cases import SCENE_CLASSES, untested, without_counter
from sept.gpu.memory import DETECTED, GIB, build_learner, recipe, step_memory
from sept.gpu.report import Result
from sept.gpu.runner import Check
from sept.gpu.steps import AUTO, Steps, free_memory, noise
from sept.training.learner import Chunk

OVER = 0.15, GIB  # allowance for what is not counted: allocator rounding, as a share; workspaces of cuDNN and cuBLAS
MICRO_OVER = 0.5, 0  # at micro size the uncounted augmentation is a large part
MIB = 2**20


@dataclass(frozen=True)
class Step:
    """A step at full size, and its replacement without a card."""

    kind: str
    batch: int
    chunk: Chunk | str | None = None
    sides: tuple[int, int] = DETECTED
    micro_batch: int = 8
    micro_chunk: Chunk | str | None = None


def _sizes(given: Any, model: Backbone | None = None, classes: int | None = None) -> dict[str, Any]:
    return {"given": given, "model": model, "classes": classes}


MICRO = {
    "moby": _sizes(micro.moby(batch_size=8, drop_path_rate=0.2), micro.SWIN),
    "ibot": _sizes(micro.ibot(drop_path_rate=0.1), micro.VIT),
    "detect": _sizes(micro.detect(epochs=20, rpn_samples=64, roi_samples=32), micro.SWIN, SCENE_CLASSES),
    "segment": _sizes(micro.segment(epochs=20), micro.SWIN, SCENE_CLASSES),
}
SCENES = (micro.SCENE, micro.SCENE)
STEPS = {
    "MoBy Swin-T, 512 images, chunk auto": Step("moby", 512, AUTO, micro_chunk=AUTO),
    "MoBy Swin-T, 512 images, all in chunks of 128": Step("moby", 512, Chunk(128), micro_chunk=Chunk(2)),
    "iBOT ViT-S, 64 images of 2 + 10 crops, chunk auto": Step("ibot", 64, AUTO, micro_chunk=AUTO),
    "detector, 2 images of 800 x 1333": Step("detect", 2, micro_batch=2),
    "detector, 16 images of 800 x 1333": Step("detect", 16, micro_batch=4),
    "segmenter, 16 images of 512 x 512": Step("segment", 16, micro_batch=4),
}


def fits(card: Card, name: str) -> Result:
    """The second step's peak, with the optimiser's state allocated."""
    step = STEPS[name]
    sized = step if card.real else replace(step, batch=step.micro_batch, chunk=step.micro_chunk, sides=SCENES)
    label = (
        name if card.real else f"{name.partition(',')[0].split()[0]}, micro, {sized.batch} images, {_told(sized.chunk)}"
    )
    given = _given(step.kind, card)
    counted = None if sized.chunk == AUTO else _counted(sized, given)
    free = _free(card)
    if counted is not None and counted > free:
        return Result(label, None, text=f"counted {_size(card, counted)}, free {_size(card, free)}: use fewer images")
    peak, chunk = _peak(card, sized, given)
    counted = counted or _counted(replace(sized, chunk=chunk), given)
    over, workspaces = OVER if card.real else MICRO_OVER
    most = counted * (1 + over) + workspaces
    text = f"counted {_size(card, counted)}; {_told(chunk)}"
    return Result(label, peak <= most, _size(card, peak), f"<= {_size(card, most)}", text)


def _given(kind: str, card: Card) -> dict[str, Any]:
    """Recipe, model and classes, as `step_memory` takes them."""
    return _sizes(recipe(kind)) if card.real else MICRO[kind]


def _counted(step: Step, given: dict[str, Any]) -> int:
    with without_counter():
        return step_memory(step.kind, step.batch, chunk=step.chunk, sides=step.sides, **given).peak  # type: ignore


def _peak(card: Card, step: Step, given: dict[str, Any]) -> tuple[int, Chunk | None]:
    """Bytes of tensors on the device at most, in a second step, and how the batch was encoded."""
    learner: Any = untested(partial(build_learner, step.kind, *given.values()))
    if step.kind == "detect":
        learner.model.transform.min_size = step.sides[:1]
    data = noise(step.kind, learner, step.batch, step.sides)
    with card.on():
        free_memory()
        steps = Steps(learner, data, card.autocast, step.chunk)
        chunk = steps.learner.chunk
        steps()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        steps()
        torch.cuda.synchronize()
        peak = int(torch.cuda.max_memory_allocated())
        del steps, learner
        free_memory()
    return peak, chunk


def _free(card: Card) -> int:
    with card.on():
        free_memory()
        return int(torch.cuda.mem_get_info()[0])


def _size(card: Card, size: float) -> str:
    return f"{size / GIB:.1f} GiB" if card.real else f"{size / MIB:.1f} MiB"


def _told(chunk: Chunk | str | None) -> str:
    if isinstance(chunk, Chunk):
        return f"{chunk.size} at a time, {max(chunk.kept, chunk.size)} kept"
    return "whole" if chunk is None else f"chunk {chunk}"


CHECKS: Mapping[str, Check] = {name: partial(fits, name=name) for name in STEPS}
