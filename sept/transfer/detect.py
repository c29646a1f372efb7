"""The fine-tuned detector: Faster R-CNN on the backbone, by the recipe of MoBY's transfer (SEPT, detection tasks)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sept.backbones import Backbone
from sept.training.learner import Learner, seeded_weights
from sept.training.optim import transfer_groups
from sept.transfer.detection_metrics import ABSENT, DetectionMetrics
from sept.transfer.faster_rcnn import build_detector
from sept.transfer.recipes import Detect

DROP = 0.1  # factor on the learning rate at a milestone


class Detector(Learner):
    """Learns from the boxes of `targets`; average precisions on the test set, in percent.

    `ap`, `ap50`, `ap75`, `voc_ap50` and, by class, `class_ap` and `class_voc_ap50` (C,) are those of the last test;
    the names are explained in `DetectionMetrics`.
    """

    def __init__(
        self, recipe: Detect, backbone: Backbone, classes: int, start: Path | None, *, seed: int, steps_per_epoch: int
    ) -> None:
        super().__init__(seed=seed, steps=recipe.epochs * steps_per_epoch)
        self.recipe, self.milestones = recipe, [epoch * steps_per_epoch for epoch in recipe.milestones]
        with seeded_weights(seed, "detector"):
            self.model = build_detector(recipe, backbone, classes, start)
        self.metrics = DetectionMetrics(classes)
        for name, value in self.metrics.none().items():
            self.register_buffer(name, value)

    def lr(self, step: int, scale: float = 1.0) -> float:
        r = self.recipe
        return scale * stepped(step, r.lr, self.milestones, r.warmup_steps, r.warmup_factor)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses = self.model(_unit(batch["images"]), batch["targets"])
        loss = torch.stack(list(losses.values())).sum()
        self.record({**losses, "loss": loss})
        return self.finite(loss)

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Detections in uint8 (3, H, W) images, in their pixels: see `DetectorModel`. In eval mode."""
        assert not self.model.training
        return self.model(_unit(images))

    def test_batch(self, batch: Any) -> None:
        """Detects the boxes of one test batch; `sept.training.callbacks.EvaluateEvery` calls it in eval mode."""
        self.metrics.update(self.predict(batch["images"]), batch["targets"])

    def test_end(self) -> dict[str, float]:
        """Computes precisions from the detections, and returns what is to be logged."""
        found = self.metrics.compute()
        for name, value in found.items():
            getattr(self, name).copy_(value)
        return {name: value.item() for name, value in found.items() if value.ndim == 0 and value != ABSENT}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.adamw(transfer_groups(self.model, self.recipe.weight_decay))


def stepped(step: int, peak: float, milestones: list[int], warmup: int, factor: float) -> float:
    """`peak`, divided by 10 at each milestone; the first `warmup` steps rise linearly from `factor` of it (mmcv)."""
    rate = peak * DROP ** sum(step >= milestone for milestone in milestones)
    return rate * (factor + (1 - factor) * step / warmup) if step < warmup else rate


def _unit(images: list[Tensor]) -> list[Tensor]:
    return [image.float().div(255) for image in images]
