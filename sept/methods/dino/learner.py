"""DINO: self-distillation without labels across crops of an image (Caron et al. 2021, and its released code)."""

import math
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from sept.backbones import Backbone
from sept.methods.dino.recipe import DinoRecipe
from sept.methods.learner import MOMENTUM, interleave_views, split_views
from sept.methods.recipe import GLOBAL_CROPS, Length
from sept.methods.selfdistillation import SelfDistillation, cls_loss, sharpen
from sept.methods.views import MultiCrop
from sept.training.optim import decay_groups


class Dino(SelfDistillation):
    """Self-distillation of the pooled feature of any network: a ViT's class token, the mean of another's last map.

    Batch norm of a ResNet normalises the crops of one size together, and the teacher's by statistics of its own.
    """

    def __init__(self, recipe: DinoRecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        super().__init__(recipe, backbone, seed=seed, length=length)
        self.student["head"].lengths.requires_grad_(not recipe.norm_last_layer)
        self.views = MultiCrop(recipe, seed)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        crops = self.views(batch, self.step)
        with torch.no_grad():
            images = interleave_views(crops[:GLOBAL_CROPS])
            features = self.encoded(self.teacher["backbone"], images, GLOBAL_CROPS)
            teacher = self.teacher["head"](features)
        target = sharpen(teacher, self.cls_center, self.temperature())
        loss = cls_loss(self._student(crops), split_views(target, GLOBAL_CROPS), self.recipe.student_temp)
        self.move_center(self.cls_center, teacher.float().mean(dim=0, keepdim=True))
        self.log_health(self.averaged(loss), math.log(self.recipe.out_dim), self.gathered(features))
        self.record_state(target)
        return self.finite(loss)

    def _student(self, crops: list[Tensor]) -> list[Tensor]:
        """Logits (B, C) of every crop (B, 3, H, W). Crops of one size are encoded together."""
        logits: list[Tensor] = []
        for _, equal in groupby(crops, key=lambda crop: crop.shape[-1]):
            same = list(equal)
            features = self.encoded(self.student["backbone"], interleave_views(same), len(same))
            logits += split_views(self.student["head"](features), len(same))
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.recipe.optimiser == "adamw":
            return super().configure_optimizers()
        groups = decay_groups(self.trained(), self.recipe.weight_decay)
        return torch.optim.SGD(groups, lr=self.lr(0), momentum=MOMENTUM)
