"""A linear layer on the maps of a backbone: the cheapest segmenter (DINOv3, linear segmentation on ADE20K).

For a ViT the last map, after its norm. For a network of stages all maps: each has a linear layer, and their logits are
added at the finest grid, equivalent to one linear layer on all maps.
"""

from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.families import build_trunk
from sept.backbones.flops import BACKWARD, counted_flops
from sept.backbones.trunk import Trunk
from sept.transfer.recipes import SegmentLinear
from sept.transfer.upernet import classifier, enlarged


class LinearModel(nn.Module):
    """Images float32 (B, 3, H, W), normalised, of any size, to logits float32 (B, C, H, W).

    A frozen trunk is never in train mode and has no gradients.
    """

    def __init__(self, recipe: SegmentLinear, trunk: Trunk, classes: int) -> None:
        super().__init__()
        self.frozen, self.trunk = recipe.frozen, trunk.requires_grad_(not recipe.frozen)
        self.heads = nn.ModuleList(_head(width, classes, recipe.dropout) for width in trunk.channels)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad() if self.frozen else nullcontext():
            maps = self.trunk(images)
        return enlarged(self._logits(maps), self.trunk, images)

    def _logits(self, maps: list[Tensor]) -> Tensor:
        """(B, C, h, w) at the grid of the finest map."""
        finest, *others = (head(each) for head, each in zip(self.heads, maps, strict=True))
        for each in others:
            finest = finest + F.interpolate(each, finest.shape[2:], mode="bilinear", align_corners=False)
        return finest

    def train(self, mode: bool = True) -> "LinearModel":
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def flops(self, images: Tensor) -> float:
        """FLOPs of forward and backward pass; the latter stops at a frozen trunk."""
        every, trunk = counted_flops(self, images), counted_flops(self.trunk, images)
        return (1 + BACKWARD) * every - (BACKWARD * trunk if self.frozen else 0)


def build_linear(recipe: SegmentLinear, backbone: Backbone, classes: int, start: Path | None) -> LinearModel:
    """With a trunk from the file `start`, or random; ConfigError as in `build_trunk`."""
    drop_path = 0.0 if recipe.frozen else recipe.drop_path_rate
    return LinearModel(recipe, build_trunk(backbone, start, drop_path, maps="last"), classes)


def _head(width: int, classes: int, dropout: float) -> nn.Module:
    """Dropout of whole channels, batch norm, and the linear layer."""
    drop, linear = classifier(width, classes, dropout)
    return nn.Sequential(drop, nn.BatchNorm2d(width), linear)
