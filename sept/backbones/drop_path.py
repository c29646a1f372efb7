"""Stochastic depth whose draws are made before a forward pass, for every image of the global batch.

So it does not matter how a batch is shared among processes, cut into chunks or encoded a second time in the backward
pass: an image's blocks are dropped all the same.
"""

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from sept.runtime.device import rank_and_world, send


class SharedDropPath(DropPath):
    """timm's DropPath with the factors (B,) of the images that come next: 0, or 1 / (1 - rate)."""

    factors: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.drop_prob or not self.training:
            return x
        assert self.factors is not None, "drop_path_factors come before a forward pass in train mode"
        return x * self.factors.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def share_drop_path(model: nn.Module) -> nn.Module:
    """`model` with every DropPath replaced by a shared one."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is DropPath:
                setattr(module, name, SharedDropPath(child.drop_prob))
    return model


def drop_path_factors(model: nn.Module, images: Tensor) -> Tensor | None:
    """(B, layers) float32 for a forward pass of B `images` in train mode, None where nothing is dropped.

    Drawn from torch's global generator of the CPU, layer by layer, for the global batch: processes hold equal,
    consecutive shares of it and draw from generators that are seeded alike.
    """
    layers = _dropping(model)
    if not layers:
        return None
    rank, world = rank_and_world()
    share = slice(rank * len(images), (rank + 1) * len(images))
    keeps = [1 - layer.drop_prob for layer in layers]
    drawn = [torch.empty(len(images) * world).bernoulli_(keep)[share] / keep for keep in keeps]
    return send([torch.stack(drawn, dim=1)], images.device)[0]


def set_factors(model: nn.Module, factors: Tensor | None) -> None:
    """Give the layers their columns of `drop_path_factors`, or of some of its rows, for the forward pass to come."""
    if factors is not None:
        for layer, column in zip(_dropping(model), factors.unbind(1), strict=True):
            layer.factors = column


def _dropping(model: nn.Module) -> list[SharedDropPath]:
    """In the order in which they are called."""
    return [m for m in model.modules() if isinstance(m, SharedDropPath) and m.drop_prob and m.training]
