"""Faster R-CNN with a feature pyramid on a trunk: torchvision's detector with the sizes of MoBY's transfer.

The same: anchors, thresholds, samplers and heads. Unlike mmdet: box regression uses smooth L1, which beyond 1/9 is L1
minus a constant; there are no masks, as VOC and LogoDet have none.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from sept.backbones import Backbone, Statistics
from sept.backbones.families import build_trunk
from sept.backbones.networks import statistics
from sept.backbones.trunk import Trunk
from sept.transfer.recipes import Detect

LEVELS = 5  # of the pyramid
ROI_CELLS, SAMPLES_PER_CELL = 7, 2  # per box, along each side


class Coarser(ExtraFPNBlock):
    """Subsamples the last level by 2 until there are `LEVELS` (FPN: once, after four maps)."""

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        while len(results) < LEVELS:
            results = [*results, F.max_pool2d(results[-1], kernel_size=1, stride=2)]
        return results, [str(level) for level in range(LEVELS)]


class Pyramid(nn.Module):
    """Images (B, 3, H, W) to levels "0" to "4" of `width` channels, each of half the side of the one before it.

    The trunk's maps are the first levels: four of a Swin-T, a ViT or a ResNet, two of a micro Swin.
    """

    def __init__(self, trunk: Trunk, width: int) -> None:
        super().__init__()
        self.trunk, self.out_channels = trunk, width
        self.fpn = FeaturePyramidNetwork(trunk.channels, width, Coarser())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.fpn(OrderedDict((str(level), found) for level, found in enumerate(self.trunk(images))))


class DetectorModel(FasterRCNN):
    """In training, (images, targets) to a dictionary of losses; in eval mode, images to detections.

    images: float32 (3, H, W) in [0, 1] each, any sizes, resized, normalised and padded to multiples of 32 inside.
    targets: boxes float32 (n, 4) in pixels, n >= 0, and labels int64 (n,) from 1. Detections: the same, with scores
    float32 (n,), best first. In training a shorter side is drawn for each image, from torch's generator. pixels:
    normalisation of images.
    """

    def __init__(self, recipe: Detect, pyramid: Pyramid, classes: int, pixels: Statistics) -> None:
        before_nms, after_nms = recipe.proposals
        super().__init__(
            pyramid,
            min_size=tuple(recipe.short_sides),
            max_size=recipe.long_side,
            image_mean=pixels[0],
            image_std=pixels[1],
            rpn_anchor_generator=AnchorGenerator(
                tuple((side,) for side in recipe.anchor_sides), (tuple(recipe.anchor_ratios),) * LEVELS
            ),
            rpn_pre_nms_top_n_train=before_nms,
            rpn_post_nms_top_n_train=after_nms,
            rpn_pre_nms_top_n_test=after_nms,
            rpn_post_nms_top_n_test=after_nms,
            rpn_batch_size_per_image=recipe.rpn_samples,
            box_roi_pool=MultiScaleRoIAlign(_names(pyramid), ROI_CELLS, SAMPLES_PER_CELL),
            box_head=TwoMLPHead(recipe.fpn_width * ROI_CELLS**2, recipe.head_width),
            box_predictor=FastRCNNPredictor(recipe.head_width, classes + 1),
            box_batch_size_per_image=recipe.roi_samples,
            box_score_thresh=recipe.score,
            box_nms_thresh=recipe.nms,
            box_detections_per_img=recipe.detections,
        )
        self.short_sides = {True: tuple(recipe.short_sides), False: (recipe.test_short_side,)}
        for part in (self.backbone, self.rpn.head, self.roi_heads.box_predictor):
            part.register_forward_hook(_full_precision)

    def train(self, mode: bool = True) -> "DetectorModel":
        self.transform.min_size = self.short_sides[mode]
        return super().train(mode)


def build_detector(recipe: Detect, backbone: Backbone, classes: int, start: Path | None) -> DetectorModel:
    """With a trunk from the file `start`, or random; ConfigError as in `build_trunk`."""
    trunk = build_trunk(backbone, start, recipe.drop_path_rate)
    return DetectorModel(recipe, Pyramid(trunk, recipe.fpn_width), classes, statistics(backbone))


def _names(pyramid: Pyramid) -> list[str]:
    """Levels for RoI pooling: the maps of the trunk (FPN)."""
    return [str(level) for level in range(len(pyramid.trunk.channels))]


def _full_precision(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Under bf16 autocast anchors and boxes would become bf16, which cannot represent every pixel beyond 256."""
    return tree_map(lambda value: value.float() if isinstance(value, torch.Tensor) else value, output)
