"""The precision losses are computed in."""

import torch
from torch import Tensor


def at_least_single(x: Tensor) -> Tensor:
    """`x` in float32, or as it is where it is more precise: sums over classes want more than half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
