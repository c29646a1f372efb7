"""A small convolutional network, and an example of a backbone that is not timm's.

What a network needs to be used everywhere, under the names that timm's have: `num_features`, `num_classes`,
`feature_info`, `forward_features`, `forward_intermediates`, `forward_head`, `get_classifier`, `reset_classifier` and
`group_matcher`.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.layers import DropPath
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from sept.backbones import IMAGENET

GROUPS = 4  # of a group norm: it needs no batch statistics


class Block(nn.Module):
    """x + conv(relu(norm(x))), twice as coarse before that where stride is 2."""

    def __init__(self, channels: int, width: int, stride: int, drop_path: float) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
        self.norm, self.conv = nn.GroupNorm(GROUPS, width), nn.Conv2d(width, width, 3, padding=1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return x + self.drop_path(self.conv(F.relu(self.norm(x))))


class WithHead(nn.Module):
    """A network with a linear classifier on `num_features` pooled numbers, under timm's names."""

    num_features: int

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to what is pooled."""
        raise NotImplementedError

    def pooled(self, x: Tensor) -> Tensor:
        """To (B, num_features)."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """To (B, num_features), or to (B, num_classes)."""
        x = self.pooled(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()


class PlainConv(WithHead):
    """A stem of 4 x 4 patches and a block a stage, each stage of half the grid of the one before it.

    grid: the feature is `grid` x `grid` means of the last map; 2 tells the quarters of an image apart. stem: another
    one, to widths[0] channels in cells of 4 pixels.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256),
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        grid: int = 1,
        stem: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.num_features = grid, widths[-1] * grid**2
        self.stem = stem or nn.Conv2d(in_chans, widths[0], 4, stride=4)
        strides = [1] + [2] * (len(widths) - 1)
        entering = [widths[0], *widths[:-1]]
        rates = [drop_path_rate * i / max(1, len(widths) - 1) for i in range(len(widths))]
        self.stages = nn.ModuleList(map(Block, entering, widths, strides, rates))
        self.norm = nn.GroupNorm(GROUPS, widths[-1])
        self.reset_classifier(num_classes)
        self.feature_info = [
            {"num_chs": width, "reduction": 4 * 2**i, "module": f"stages.{i}"} for i, width in enumerate(widths)
        ]

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D, h, w)."""
        return self.norm(self.forward_intermediates(x, intermediates_only=True)[-1])  # type: ignore[no-any-return]

    def forward_intermediates(
        self, x: Tensor, indices: Sequence[int] | None = None, norm: bool = False, intermediates_only: bool = True
    ) -> Any:
        """The maps of the stages `indices`, of all if None."""
        assert intermediates_only
        maps, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps if indices is None else [maps[i] for i in indices]

    def pooled(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to (B, D * grid^2)."""
        return x.mean(dim=(2, 3)) if self.grid == 1 else F.adaptive_avg_pool2d(x, self.grid).flatten(1)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """What belongs together in layer-wise decay of rates."""
        return {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None), (r"^norm", (99999,))]}


default_cfgs = generate_default_cfgs(
    {"plain_conv.untrained": {"mean": IMAGENET[0], "std": IMAGENET[1], "classifier": "head"}}
)
"""timm's record of the network: what its images are normalised by."""


@register_model
def plain_conv(pretrained: bool = False, **args: Any) -> nn.Module:
    """args: those of PlainConv."""
    return build_model_with_cfg(PlainConv, "plain_conv", pretrained, **args)  # type: ignore[no-any-return]
