"""Stochastic depth whose draws belong to the global batch, so that processes sharing it drop what one would."""

from timm.layers import DropPath
from torch import Tensor, nn

from sept.distributed import place


class SharedDropPath(DropPath):
    """timm's DropPath with a draw for every sample of the global batch, of which a process uses its own.

    Processes hold equal, consecutive shares of the batch and draw from generators that are seeded alike.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.drop_prob or not self.training:
            return x
        (rank, world), keep = place(), 1 - self.drop_prob
        kept = x.new_empty(len(x) * world).bernoulli_(keep)[rank * len(x) : (rank + 1) * len(x)]
        return x * (kept / keep).view(-1, *[1] * (x.ndim - 1))


def share_drop_path(model: nn.Module) -> nn.Module:
    """`model` with every DropPath replaced by a shared one."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is DropPath:
                setattr(module, name, SharedDropPath(child.drop_prob))
    return model
