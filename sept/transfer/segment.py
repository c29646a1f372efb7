"""The fine-tuned segmenter: UPerNet or a linear layer on the backbone."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from sept.backbones import Backbone
from sept.backbones.networks import statistics
from sept.data.segmentation.masks import IGNORE
from sept.data.segmentation.views import fitted
from sept.data.transforms import normalise
from sept.training.learner import Learner, seeded_weights
from sept.training.optim import transfer_groups
from sept.transfer.recipes import Segment, Segmentation, SegmentLinear
from sept.transfer.segmentation_loss import pixel_loss

ABSENT = -1.0  # in place of the IoU of a class that is neither in the masks nor predicted


class Segmenter(Learner):
    """Learns classes of pixels; `miou`, `pixel_accuracy` and `class_iou` (C,) of the last test, in percent, are
    computed over all pixels of the test set together, as for VOC and ADE20K, not per image."""

    model: Any
    miou: Tensor
    pixel_accuracy: Tensor
    class_iou: Tensor

    def __init__(
        self,
        recipe: Segmentation,
        backbone: Backbone,
        classes: int,
        start: Path | None,
        *,
        seed: int,
        steps_per_epoch: int,
    ) -> None:
        super().__init__(seed=seed, steps=recipe.epochs * steps_per_epoch)
        self.recipe, self.statistics = recipe, statistics(backbone)
        with seeded_weights(seed, "segmenter"):
            self.model = network_for(recipe, backbone, classes, start)
        self.confusion = MulticlassConfusionMatrix(classes, ignore_index=IGNORE)
        self.register_buffer("miou", torch.tensor(ABSENT))
        self.register_buffer("pixel_accuracy", torch.tensor(ABSENT))
        self.register_buffer("class_iou", torch.full((classes,), ABSENT))

    def lr(self, step: int, scale: float = 1.0) -> float:
        r = self.recipe
        return scale * linear(step, self.steps, r.lr, r.warmup_steps, r.warmup_factor)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, masks = normalise(batch["images"], self.statistics), batch["masks"]
        if isinstance(self.recipe, SegmentLinear):
            loss = pixel_loss(self.model(images), masks, IGNORE)
            self.record({"loss": loss})
            return self.finite(loss)
        loss, auxiliary = (pixel_loss(each, masks, IGNORE) for each in self.model(images))
        self.record({"loss": loss, "loss_auxiliary": auxiliary})
        return self.finite(loss + self.recipe.auxiliary * auxiliary)  # type: ignore[attr-defined]

    @torch.no_grad()
    def predict(self, image: Tensor) -> Tensor:
        """The class of every pixel, int64 (H, W), of a uint8 (3, H, W) image, which is resized to the recipe's sides
        internally. In eval mode."""
        assert not self.model.training
        height, width = image.shape[1:]
        size = fitted(height, width, self.recipe.side, self.recipe.long_side)
        resized = F.interpolate(image[None].float().div(255), size, mode="bilinear", antialias=True)
        logits = self.model(normalise(resized, self.statistics))
        return F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)[0].argmax(dim=0)

    def test_batch(self, batch: Any) -> None:
        """Counts the pixels of one test batch; `sept.training.callbacks.EvaluateEvery` calls it in eval mode."""
        for image, mask in zip(batch["images"], batch["masks"], strict=True):
            self.confusion.update(self.predict(image), mask.long())

    def test_end(self) -> dict[str, float]:
        """Computes IoUs from the counts, and returns what is to be logged."""
        counts = self.confusion.compute()
        self.confusion.reset()
        self.class_iou.copy_(class_ious(counts))
        self.pixel_accuracy.copy_(100 * counts.trace() / counts.sum())
        self.miou.copy_(self.class_iou[self.class_iou != ABSENT].mean())
        return {"miou": self.miou.item(), "pixel_accuracy": self.pixel_accuracy.item()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.adamw(transfer_groups(self.model, self.recipe.weight_decay))


def network_for(recipe: Segmentation, backbone: Backbone, classes: int, start: Path | None) -> nn.Module:
    """The network of the recipe, with a trunk from the file `start`, or random."""
    if isinstance(recipe, SegmentLinear):
        from sept.transfer.segment_linear import build_linear

        return build_linear(recipe, backbone, classes, start)
    from sept.transfer.upernet import build_segmenter

    assert isinstance(recipe, Segment)
    return build_segmenter(recipe, backbone, classes, start)


def linear(step: int, steps: int, peak: float, warmup: int, factor: float) -> float:
    """From `peak` at step 0 to 0 at `steps` (mmcv's poly of power 1); the first `warmup` steps rise to that from
    `factor` of it."""
    rate = peak * (1 - step / steps)
    return rate * (factor + (1 - factor) * step / warmup) if step < warmup else rate


def class_ious(confusion: Tensor) -> Tensor:
    """(C,) float32 IoU in percent from a confusion matrix (C, C), ground truth by prediction; ABSENT for classes in
    neither."""
    hit = confusion.diagonal().float()
    union = confusion.sum(dim=0) + confusion.sum(dim=1) - confusion.diagonal()
    return torch.where(union > 0, 100 * hit / union.clamp(min=1), ABSENT)
