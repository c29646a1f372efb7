"""The momentum (target, teacher) copy of an online network."""

import copy

import torch
from torch import nn


def momentum_copy(online: nn.Module) -> nn.Module:
    """A copy without gradients. Its buffers (BatchNorm statistics) evolve independently."""
    target = copy.deepcopy(online)
    return target.requires_grad_(False)


@torch.no_grad()
def ema_update(online: nn.Module, target: nn.Module, momentum: float) -> None:
    """target = momentum * target + (1 - momentum) * online, parameters only, by name.

    Parameters that only one of the two has (iBOT's mask embedding, say) are left alone.
    """
    source = dict(online.named_parameters())
    names = [name for name, _ in target.named_parameters() if name in source]
    own = dict(target.named_parameters())
    torch._foreach_lerp_([own[name] for name in names], [source[name] for name in names], 1 - momentum)
