"""Training steps of a learner on a batch that stays on the device, without loader, copies and trainer."""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sept.gpu.memory import LOG_EVERY, OBJECTS, STEP
from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.learner import PretrainingLearner
from sept.training.learner import Chunk

AUTO = "auto"


class Steps:
    """One step a call, as Lightning takes it, on the device `cuda`.

    batch: images, on the CPU; chunk: how the encoder takes them, AUTO: what is chosen for the device.
    """

    def __init__(
        self,
        learner: Any,
        batch: dict[str, Any],
        autocast: Callable[[], AbstractContextManager],
        chunk: Chunk | str | None = None,
    ) -> None:
        self.learner = learner
        self.learner.train().to("cuda")
        self.autocast, self.batch = autocast, sent(batch)
        self.trainer: Any = SimpleNamespace(
            world_size=1, global_step=STEP, log_every_n_steps=LOG_EVERY, is_global_zero=True, loggers=[]
        )
        self.trainer.strategy = SimpleNamespace(reduce=lambda value, **_: value)
        self.trainer.precision_plugin = SimpleNamespace(train_step_context=autocast)
        self.learner._trainer = self.trainer
        self.optimizer: Any = self.learner.configure_optimizers()
        self.trainer.optimizers = [self.optimizer]
        self.learner.chunk = self._chosen() if chunk == AUTO else chunk

    def __call__(self) -> None:
        self.learner.on_train_batch_start(self.batch, 0)
        self.learner.optimizer_step(0, 0, self.optimizer, self._closure)
        self.learner.take_recorded()
        self.trainer.global_step += 1

    def _closure(self) -> Tensor:
        with self.autocast():
            loss: Tensor = self.learner.training_step(self.batch, 0)
        self.optimizer.zero_grad()
        loss.backward()
        self.learner.on_before_optimizer_step(self.optimizer)
        return loss

    def _chosen(self) -> Chunk | None:
        assert isinstance(self.learner, PretrainingLearner)
        images = len(self.batch["crops"][0])
        with torch.enable_grad():
            return self.learner.chunk_that_fits(images)


def free_memory() -> None:
    """Returns unused cached memory to the device."""
    gc.collect()
    torch.cuda.empty_cache()


def sent(batch: Any) -> Any:
    """A batch's tensors on the device."""
    if isinstance(batch, dict):
        return {name: sent(value) for name, value in batch.items()}
    if isinstance(batch, list):
        return [sent(value) for value in batch]
    return batch.cuda() if isinstance(batch, Tensor) else batch


def noise(kind: str, learner: Any, batch: int, sides: tuple[int, int]) -> dict[str, Any]:
    """A batch of `kind` as its loader gives it, of random pixels; sides: of the detector's images."""
    draws = torch.Generator().manual_seed(0)

    def images(height: int, width: int) -> Tensor:
        return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=draws)

    if kind in ("moby", "ibot"):
        found: dict[str, Any] = {"crops": [images(side, side) for side, _ in learner.views.crops]}
        if isinstance(learner.recipe, IBotRecipe):
            masks = [learner.views.masks(0, sample) for sample in range(batch)]
            found["masks"] = [torch.stack(view) for view in zip(*masks, strict=True)]
        return found
    if kind == "detect":
        return {"images": [*images(*sides)], "targets": [_boxes(draws, *sides) for _ in range(batch)]}
    side = learner.recipe.side
    if kind == "segment":
        classes = len(learner.class_iou)
        labels = torch.randint(0, classes, (batch, side, side), dtype=torch.uint8, generator=draws)
        return {"images": images(side, side), "masks": labels}
    return {"images": images(side, side), "labels": torch.zeros(batch, dtype=torch.long)}


def _boxes(draws: torch.Generator, height: int, width: int) -> dict[str, Tensor]:
    """OBJECTS boxes of a quarter to a half of the image's sides."""
    shares = torch.rand(OBJECTS, 4, generator=draws)
    sizes = 0.25 + 0.25 * shares[:, 2:]
    corners = shares[:, :2] * (1 - sizes)
    boxes = torch.cat([corners, corners + sizes], dim=1) * torch.tensor([width, height, width, height])
    return {"boxes": boxes, "labels": torch.ones(OBJECTS, dtype=torch.long)}
