"""Networks of one grid, such as ViTs, as trunks: a simple feature pyramid on their map (ViTDet, section 3; BEiT).

Positions are interpolated to the grid of the image (timm's dynamic_img_size). Attention is over the whole image: the
windows of ViTDet are for memory.
"""

from collections.abc import Sequence
from math import log2
from typing import Any

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from sept.backbones.trunk import Trunk

STRIDES = (4, 8, 16, 32)  # pixels of a cell of each map
DEPTHS = (1 / 3, 1 / 2, 2 / 3, 1)  # of the blocks: 4, 6, 8 and 12 of 12 (BEiT, MAE)


class PlainTrunk(Trunk):
    """Maps of cells of `STRIDES` pixels, each from a map of the network by transposed convolutions or pooling.

    A patch whose side is no power of two would give cells that detectors do not know: the image is resized, so that a
    patch of 14 pixels stands for 16 of it.
    """

    def __init__(self, network: Any, deep: bool) -> None:
        """network: of timm, without a head. deep: all maps are of the last block (ViTDet); else they are of `DEPTHS`
        (BEiT and MAE on ADE20K). Neither passes the network's last norm."""
        super().__init__()
        blocks, self.side = len(network.feature_info), int(network.feature_info[-1]["reduction"])
        self.cell = 2 ** round(log2(self.side))  # pixels that a patch stands for
        self.places = [blocks - 1 if deep else max(0, round(share * blocks) - 1) for share in DEPTHS]
        self.patch = [max(self.cell, STRIDES[-1])] * 2
        network.prune_intermediate_layers([blocks - 1], prune_norm=True, prune_head=True)
        self.network = network
        dim = int(network.feature_info[-1]["num_chs"])
        self.scales = nn.ModuleList(_scaled(dim, self.cell, stride) for stride in STRIDES)
        self.channels = [_width(dim, self.cell, stride) for stride in STRIDES]

    def forward(self, images: Tensor) -> list[Tensor]:
        found = grids(self.network, self.filled(images), sorted({*self.places}), self.side, self.cell)
        of = dict(zip(sorted({*self.places}), found, strict=True))
        return [scale(of[place]) for scale, place in zip(self.scales, self.places, strict=True)]


class LastMap(Trunk):
    """The last map of a network of one grid, after its norm (DINOv3's linear segmentation): cells of a patch."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.side = int(network.feature_info[-1]["reduction"])
        self.last, self.channels = len(network.feature_info) - 1, [int(network.feature_info[-1]["num_chs"])]
        self.patch = [self.side] * 2
        network.prune_intermediate_layers([self.last], prune_norm=False, prune_head=True)
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        return grids(self.network, self.filled(images), [self.last], self.side, self.side, norm=True)


def grids(
    network: Any, images: Tensor, places: Sequence[int], side: int, cell: int, norm: bool = False
) -> list[Tensor]:
    """Maps (B, D, H / cell, W / cell) of the blocks `places`, of images whose sides are multiples of `cell`."""
    if cell != side:
        size = [length // cell * side for length in images.shape[-2:]]
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    return network.forward_intermediates(images, indices=list(places), norm=norm, intermediates_only=True)  # type: ignore


def _width(dim: int, cell: int, stride: int) -> int:
    """Each doubling of a map's sides halves its channels, at most twice (ViTDet)."""
    doublings = min(2, max(0, round(log2(cell) - log2(stride))))
    return max(1, dim // 2**doublings)


def _scaled(dim: int, cell: int, stride: int) -> nn.Module:
    """From cells of `cell` pixels to cells of `stride`: both are powers of two."""
    layers: list[nn.Module] = []
    while stride > cell:
        layers, cell = [*layers, nn.MaxPool2d(2)], cell * 2
    width, first = dim, cell
    while stride < cell:
        cell //= 2
        narrower = _width(dim, first, cell)
        between: list[nn.Module] = [LayerNorm2d(width), nn.GELU()] if layers else []
        layers, width = [*layers, *between, nn.ConvTranspose2d(width, narrower, 2, stride=2)], narrower
    return nn.Sequential(*layers)
