"""UPerNet on a Swin trunk: the decoder of segmentation-models-pytorch with the sizes of Swin's segmentation code.

As there: an auxiliary head on the map before the last, dropout before both classifiers. Other than there: batch norm is
not shared by several GPUs, as one trains.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.swin import SwinTrunk, build_trunk
from sept.errors import ConfigError
from sept.transfer.recipes import Segment

DECODER = "segmentation_models_pytorch"
HEAD_STD = 0.01  # of a new classifier's weights (mmseg)
LEAST_STAGES = 2
FINER_MAPS, LEAST_DEPTH = 2, 3  # maps of half sides that the decoder expects before the trunk's, and does not look at


class SegmenterModel(nn.Module):
    """In training, images to logits of the decoder and of the auxiliary head; in eval mode to the former alone.

    images: float32 (B, 3, H, W), normalised, of any size; logits: float32 (B, C, H, W).
    """

    def __init__(self, recipe: Segment, trunk: SwinTrunk, decoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.trunk, self.decoder = trunk, decoder
        self.head = _classifier(recipe.decoder_width, classes, recipe.dropout)
        width = recipe.decoder_width // 2  # 256 of 512, as published
        self.auxiliary = nn.Sequential(
            nn.Conv2d(trunk.channels[-2], width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _classifier(width, classes, recipe.dropout),
        )

    def forward(self, images: Tensor) -> Any:
        maps = self.trunk(images)
        logits = self._enlarged(self.head(self.decoder([None] * FINER_MAPS + maps)), maps, images)
        if not self.training:
            return logits
        return logits, self._enlarged(self.auxiliary(maps[-2]), maps, images)

    def _enlarged(self, logits: Tensor, maps: list[Tensor], images: Tensor) -> Tensor:
        """To the pixels of the images, which the trunk filled up to whole patches."""
        size = [cells * patch for cells, patch in zip(maps[0].shape[2:], self.trunk.patch, strict=True)]
        height, width = images.shape[2:]
        return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)[:, :, :height, :width]


def build_segmenter(recipe: Segment, backbone: Backbone, classes: int, start: Path | None) -> SegmenterModel:
    """With a trunk from the file `start`, or fresh.

    Raises ConfigError as `build_trunk`, for a trunk of one stage, and where the decoder's package is not installed.
    """
    if find_spec(DECODER) is None:
        raise ConfigError(f"a segmenter takes its decoder from {DECODER}: pip install 'sept[segment]'")
    from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

    trunk = build_trunk(backbone.name, backbone.args, start, recipe.drop_path_rate)
    if len(trunk.channels) < LEAST_STAGES:
        raise ConfigError(
            f"backbone.args.depths={backbone.args['depths']}: UPerNet needs at least {LEAST_STAGES} stages"
        )
    decoder = UPerNetDecoder([0] * FINER_MAPS + trunk.channels, LEAST_DEPTH, recipe.decoder_width)
    decoder.feature_norms = nn.ModuleList()  # the trunk's maps have passed theirs
    return SegmenterModel(recipe, trunk, decoder, classes)


def _classifier(width: int, classes: int, dropout: float) -> nn.Sequential:
    linear = nn.Conv2d(width, classes, 1)
    nn.init.normal_(linear.weight, std=HEAD_STD)
    assert linear.bias is not None
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Dropout2d(dropout), linear)
