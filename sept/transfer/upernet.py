"""UPerNet on a trunk: the decoder of segmentation-models-pytorch with the sizes of Swin's segmentation code.

The same: an auxiliary head on the map before the last, dropout before both classifiers. Unlike there: batch norm is not
synchronised, as a single GPU trains.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.families import build_trunk
from sept.backbones.flops import BACKWARD, counted_flops
from sept.backbones.trunk import Trunk
from sept.errors import ConfigError
from sept.transfer.recipes import Segment

DECODER = "segmentation_models_pytorch"
HEAD_STD = 0.01  # of a new classifier's weights (mmseg)
LEAST_STAGES = 2
FINER_MAPS, LEAST_DEPTH = 2, 3  # finer maps that the decoder expects before the trunk's but does not use


class SegmenterModel(nn.Module):
    """In training, images to logits of the decoder and of the auxiliary head; in eval mode to the former alone.

    images: float32 (B, 3, H, W), normalised, of any size; logits: float32 (B, C, H, W).
    """

    def __init__(self, recipe: Segment, trunk: Trunk, decoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.trunk, self.decoder = trunk, decoder
        self.head = classifier(recipe.decoder_width, classes, recipe.dropout)
        width = recipe.decoder_width // 2  # 256 of 512, as published
        self.auxiliary = nn.Sequential(
            nn.Conv2d(trunk.channels[-2], width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            classifier(width, classes, recipe.dropout),
        )

    def forward(self, images: Tensor) -> Any:
        maps = self.trunk(images)
        logits = enlarged(self.head(self.decoder([None] * FINER_MAPS + maps)), self.trunk, images)
        if not self.training:
            return logits
        return logits, enlarged(self.auxiliary(maps[-2]), self.trunk, images)

    def flops(self, images: Tensor) -> float:
        """FLOPs of forward and backward pass, without the auxiliary head."""
        return (1 + BACKWARD) * counted_flops(self, images)


def enlarged(logits: Tensor, trunk: Trunk, images: Tensor) -> Tensor:
    """Upsamples to the images' pixels, which the trunk padded to whole patches."""
    height, width = images.shape[2:]
    whole = F.interpolate(logits.float(), trunk.size(images), mode="bilinear", align_corners=False)
    return whole[:, :, :height, :width]


def build_segmenter(recipe: Segment, backbone: Backbone, classes: int, start: Path | None) -> SegmenterModel:
    """With a trunk from the file `start`, or random.

    Raises ConfigError as `build_trunk`, for a trunk of one stage, and if the decoder's package is not installed.
    """
    if find_spec(DECODER) is None:
        raise ConfigError(f"a segmenter takes its decoder from {DECODER}: pip install 'sept[segment]'")
    from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

    trunk = build_trunk(backbone, start, recipe.drop_path_rate, maps="spread")
    if len(trunk.channels) < LEAST_STAGES:
        raise ConfigError(
            f"backbone.name={backbone.name} with {backbone.args}: UPerNet needs at least {LEAST_STAGES} stages"
        )
    decoder = UPerNetDecoder([0] * FINER_MAPS + trunk.channels, LEAST_DEPTH, recipe.decoder_width)
    decoder.feature_norms = nn.ModuleList()  # the trunk's maps have passed theirs
    return SegmenterModel(recipe, trunk, decoder, classes)


def classifier(width: int, classes: int, dropout: float) -> nn.Sequential:
    linear = nn.Conv2d(width, classes, 1)
    nn.init.normal_(linear.weight, std=HEAD_STD)
    assert linear.bias is not None
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Dropout2d(dropout), linear)
