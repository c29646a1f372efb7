"""Supervised classification: the labels of the pool's images, by a linear layer on the pooled feature."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.methods.learner import FLOAT_BYTES, OneHeadLearner
from sept.methods.recipe import Length
from sept.methods.supervised.recipe import SupervisedRecipe
from sept.training.optim import at_least_single


class Supervised(OneHeadLearner):
    """A backbone and a linear head, which starts at zero (big_vision), so that the first loss is ln C.

    Processes sharing a batch gather its features before the head, so that loss and measures are of the whole batch.
    """

    def __init__(self, recipe: SupervisedRecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        assert recipe.classes is not None, "counted"
        super().__init__(recipe, backbone, recipe.classes, seed=seed, length=length)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        declared: Any = getattr(self.backbone, "no_weight_decay", set)
        self._declared = {f"backbone.{name}" for name in declared()}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features = self.features(self.backbone, self.view(batch))
        with torch.no_grad():
            labels = self.gathered(batch["label"])
        logits = at_least_single(self.head(features))
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.smoothing)
        self.log_health(loss, math.log(self.recipe.classes), features)
        self.record({"train_accuracy": (logits.argmax(dim=1) == labels).float().mean()})
        return self.finite(loss)

    def head_bytes(self) -> int:
        return int(FLOAT_BYTES * 3 * self.recipe.classes)  # logits, their softmax and its gradient

    def is_undecayed(self, name: str, parameter: Tensor) -> bool:
        """Also what the network's authors exempt: position embedding, class token, Swin's bias tables (DeiT, Swin)."""
        return name in self._declared or super().is_undecayed(name, parameter)
