"""Networks on histograms of oriented gradients (Dalal and Triggs 2005): for small images and few of them.

What a drawing, a letter or an icon shows is told by where its edges run. `hog` is those histograms with a few mean
colours and a linear map of them: a retriever that needs no training. `hog_conv` is `PlainConv` on histograms and
colours: from five images of a class it learns what a network on pixels does not (docs/results/worlds.md). Like hybrids
on scattering (Oyallon et al. 2018), with fewer maps.
"""

from collections.abc import Sequence
from math import pi
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from sept.backbones import IMAGENET
from sept.backbones.plain_conv import PlainConv, WithHead

CELL, STRIDE = 8, 4  # pixels of a cell's side, and from one to the next: each pixel is in four cells
NEIGHBOURS = 3  # cells in a row, by whose contrast one is normalised
MOST = 0.4  # of a normalised number
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
FAINT, FAINT_NORMALISED = 0.16, 0.05  # contrasts, of pixels in [0, 1] and of those divided by ImageNet's deviation
MOSAIC = 4  # cells in a row of the mean colours beside the histograms of `hog`
COLOUR = 0.75  # their weight: a third of the histograms' variance
LIFTED = 10.0  # times a normalised number, so that it is as large as a normalised colour


def histograms(x: Tensor, bins: int, faint: float, padding: int = 0) -> Tensor:
    """(B, 3, H, W) to (B, bins, h, w) in [0, MOST]: of overlapping cells, each relative to its neighbourhood.

    faint: added to the contrast of a neighbourhood, so that histograms of its flat parts stay small.
    """
    cells = F.avg_pool2d(_oriented(x, bins), CELL, STRIDE, padding)
    around = F.avg_pool2d(cells.square().sum(1, keepdim=True), NEIGHBOURS, 1, NEIGHBOURS // 2) * NEIGHBOURS**2
    return (cells / (around.sqrt() + faint)).clamp(max=MOST)


def _oriented(x: Tensor, bins: int) -> Tensor:
    """(B, 3, H, W) to (B, bins, H, W): the gradient's size, shared between the two nearest of `bins` directions.

    A direction and its opposite are one: dark on light is drawn like light on dark.
    """
    grey = (x * torch.tensor(LUMA, dtype=x.dtype, device=x.device).view(-1, 1, 1)).sum(1, keepdim=True)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    place = torch.atan2(down, across) * (bins / pi)  # in bins, from -bins to bins
    middles = torch.arange(bins, dtype=x.dtype, device=x.device).view(-1, 1, 1)
    apart = (place - middles + bins / 2).remainder(bins) - bins / 2
    return torch.hypot(across, down) * (1 - apart.abs()).clamp(min=0)


class Hog(WithHead):
    """(B, 3, H, W) in [0, 1] to (B, width). The linear map centres and whitens: `benchmarks/hog.py` computes it."""

    def __init__(
        self,
        img_size: int = 48,
        bins: int = 8,
        width: int = 128,
        in_chans: int = 3,
        num_classes: int = 0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.bins, self.num_features = bins, width
        grid = (img_size - CELL) // STRIDE + 1
        self.projection = nn.Linear(bins * grid**2 + in_chans * MOSAIC**2, width)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, bins * h * w + 3 * MOSAIC^2)"""
        colours = COLOUR * F.adaptive_avg_pool2d(x, MOSAIC)
        return torch.cat([histograms(x, self.bins, FAINT).flatten(1), colours.flatten(1)], 1)

    def pooled(self, x: Tensor) -> Tensor:
        found: Tensor = self.projection(x)
        return found

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^projection", "blocks": []}


class HogStem(nn.Module):
    """(B, 3, H, W) normalised to (B, width, H / 4, W / 4): a linear map of each cell's histogram and mean colour."""

    def __init__(self, bins: int, channels: int, width: int) -> None:
        super().__init__()
        self.bins, self.mix = bins, nn.Conv2d(bins + channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        padding = (CELL - STRIDE) // 2
        shape = LIFTED * histograms(x, self.bins, FAINT_NORMALISED, padding)
        mixed: Tensor = self.mix(torch.cat([shape, F.avg_pool2d(x, CELL, STRIDE, padding)], 1))
        return mixed


SQUARE = {
    "input_size": (3, 48, 48),
    "crop_pct": 1.0,
    "crop_mode": "squash",
    "interpolation": "bicubic",
    "classifier": "head",
}
default_cfgs = generate_default_cfgs(
    {
        "hog.untrained": {**SQUARE, "fixed_input_size": True, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
        "hog_conv.untrained": {**SQUARE, "mean": IMAGENET[0], "std": IMAGENET[1]},
    }
)
"""timm's records of the networks: what their images are normalised by."""


@register_model
def hog(pretrained: bool = False, **args: Any) -> nn.Module:
    """args: those of Hog."""
    made: nn.Module = build_model_with_cfg(Hog, "hog", pretrained, **args)
    return made


@register_model
def hog_conv(pretrained: bool = False, widths: Sequence[int] = (64, 128), bins: int = 8, **args: Any) -> nn.Module:
    """args: the others of PlainConv."""
    stem = HogStem(bins, 3, widths[0])
    args = {"grid": 2, **args, "widths": widths, "stem": stem}
    made: nn.Module = build_model_with_cfg(PlainConv, "hog_conv", pretrained, **args)
    return made
