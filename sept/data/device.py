"""To a device without waiting for it: copies the host may leave behind, and as few of them as possible."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

_ALIGNED = 16  # bytes; every dtype may start there


def move(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in its dicts, lists and tuples on the device; all else as it is.

    The copies go on behind the caller's back where the tensors are pinned.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: move(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)([move(value, device) for value in batch])
    return batch


def tensors_in(batch: Any) -> list[Tensor]:
    """Every tensor in the batch's dicts, lists and tuples."""
    if isinstance(batch, Tensor):
        return [batch]
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Contiguous CPU tensors of any dtypes and shapes on the device, in one copy that nothing waits for.

    Meant for many small ones: they are joined in pinned memory first.
    """
    if device.type == "cpu":
        return list(tensors)
    sizes = [-(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in tensors]
    starts = list(accumulate(sizes, initial=0))
    host = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda" and torch.cuda.is_available())
    for tensor, part in zip(tensors, _parts(host, tensors, starts), strict=True):
        part.copy_(tensor)
    return _parts(host.to(device, non_blocking=True), tensors, starts)


def _parts(buffer: Tensor, like: Sequence[Tensor], starts: Sequence[int]) -> list[Tensor]:
    """Views of the bytes from each start on, as the tensors they stand for."""
    return [
        buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for start, tensor in zip(starts, like, strict=False)
    ]
