"""Swin as a trunk of detectors and segmenters: a feature map of every stage, for images of any size.

The published detection code pads a map to whole windows before it shifts them, and torchvision's Swin does as well;
timm pads after the shift, which is another function wherever a map is no multiple of the window. So the weights are
timm's and the forward pass torchvision's. Equal to the published one wherever the last map exceeds the window; a map
that one window covers is not shifted here, and is there.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from sept.backbones.networks import build, is_swin
from sept.backbones.trunk import Trunk
from sept.backbones.weights import load_backbone
from sept.errors import ConfigError

HEADS = ("norm.", "head.")  # timm's parts behind the last map
INDEX = "relative_position_index"  # a buffer that each model computes itself


class SwinTrunk(Trunk):
    """Of images (B, 3, H, W) one map a stage: map i is (B, D * 2^i, h_i, w_i), where D is the width of the first stage.

    h_0 = ceil(H / patch) and h_(i+1) = ceil(h_i / 2), the same for widths. Each map passes a LayerNorm of its own,
    which is new; the next stage takes it without.
    """

    def __init__(self, swin: nn.Module, drop_path_rate: float) -> None:
        """Copies the weights of a Swin of timm. Stochastic depth rises linearly from 0 to `drop_path_rate`."""
        super().__init__()
        state = {key: value for key, value in swin.state_dict().items() if not key.startswith(HEADS)}
        sizes = _sizes(swin)
        self.patch = sizes["patch_size"]
        self.features = SwinTransformer(**sizes, stochastic_depth_prob=drop_path_rate, num_classes=1).features
        self.channels = [sizes["embed_dim"] * 2**stage for stage in range(len(sizes["depths"]))]
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)
        renamed = {torchvision_name(key): value for key, value in state.items() if not key.endswith("attn_mask")}
        indices = {key: value for key, value in self.features.state_dict().items() if key.endswith(INDEX)}
        self.features.load_state_dict({key: value for key, value in renamed.items() if key not in indices} | indices)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.filled(images)
        maps: list[Tensor] = []
        for place, layer in enumerate(self.features):  # patches, then a stage and a downsample in turns
            x = layer(x)
            if place % 2:
                maps.append(self.norms[len(maps)](x).permute(0, 3, 1, 2).contiguous())
        return maps


def swin_trunk(name: str, args: dict[str, Any], backbone: Path | None, drop_path_rate: float = 0.0) -> SwinTrunk:
    """The trunk of a timm Swin with fresh weights, or those of the file `backbone`, each of which has its place.

    The file may be of every kind that `load_backbone` knows; of a published detector's, the norms of its maps are left.
    Raises ConfigError for a file that does not fit it key by key, and for windows too small for images of any size.
    """
    swin = build(name, args)
    assert is_swin(swin)
    if backbone is not None:
        load_backbone(swin, backbone)
    return SwinTrunk(swin, drop_path_rate)


def torchvision_name(key: str) -> str:
    """timm's name of a Swin parameter to that in torchvision's `features`.

    features.0 are the patches, features.(2i+1) is stage i; timm's downsample opens stage i and is features.(2i).
    """
    for pattern, name in (
        (r"patch_embed\.proj\.(.*)", r"0.0.\1"),
        (r"patch_embed\.norm\.(.*)", r"0.2.\1"),
    ):
        if match := re.fullmatch(pattern, key):
            return match.expand(name)
    match = re.fullmatch(r"layers\.(\d+)\.(blocks|downsample)\.(.*)", key)
    assert match, f"{key}: no parameter of a Swin"
    stage, rest = int(match[1]), match[3].replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")
    return f"{2 * stage + (match[2] == 'blocks')}.{rest}"


def _sizes(swin: Any) -> dict[str, Any]:
    """Arguments of torchvision's Swin. Raises ConfigError where stages have windows of several sizes."""
    blocks = [stage.blocks for stage in swin.layers]
    windows = sorted({tuple(block.window_size) for stage in blocks for block in stage})
    if len(windows) > 1:
        raise ConfigError(
            f"the stages of this Swin have windows of {windows}: too small for detection images; "
            "set backbone.args.always_partition=true"
        )
    return {
        "patch_size": list(swin.patch_embed.patch_size),
        "embed_dim": swin.embed_dim,
        "depths": [len(stage) for stage in blocks],
        "num_heads": [stage[0].attn.num_heads for stage in blocks],
        "window_size": list(windows[0]),
        "mlp_ratio": blocks[0][0].mlp.fc1.out_features / swin.embed_dim,
    }
