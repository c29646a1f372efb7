"""From the host to a device without waiting for it."""

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on `device`; the copy goes on while the host does, out of pinned memory."""
    if device.type == "cpu":
        return tensor
    source = tensor.pin_memory() if torch.cuda.is_available() else tensor
    return source.to(device, non_blocking=True)
