"""This process's rank in a training; transfers to and from its device, asynchronous and in as few copies as
possible."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_ALIGNED = 16  # bytes; every dtype may start there


def rank_and_world() -> tuple[int, int]:
    """Rank of this process and number of processes of the training; (0, 1) for a single one."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def move(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in its dicts, lists and tuples on the device; everything else unchanged.

    Copies of pinned tensors are asynchronous.
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
    """Contiguous CPU tensors of any dtypes and shapes on the device, in one asynchronous copy.

    For many small tensors: they are first joined in pinned memory.
    """
    if device.type == "cpu":
        return list(tensors)
    host = packed(tensors, pinned=device.type == "cuda" and torch.cuda.is_available())
    return unpacked(host.to(device, non_blocking=True), tensors)


def packed(tensors: Sequence[Tensor], pinned: bool = False) -> Tensor:
    """The bytes of all in one uint8 tensor on the CPU, each aligned for its dtype."""
    host = torch.empty(sum(map(_room, tensors)), dtype=torch.uint8, pin_memory=pinned)
    for tensor, part in zip(tensors, unpacked(host, tensors), strict=True):
        part.copy_(tensor)
    return host


def unpacked(buffer: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views into the result of `packed` for tensors of these dtypes and shapes."""
    starts = accumulate(map(_room, like), initial=0)
    return [
        buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for start, tensor in zip(starts, like, strict=False)
    ]


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNED) * _ALIGNED


def fetch(tensor: Tensor) -> Callable[[], Tensor]:
    """Starts copying a tensor to the CPU, after the work queued so far; the returned function waits for it and returns
    it."""
    if tensor.device.type != "cuda" or not torch.cuda.is_available():
        return lambda: tensor.cpu()
    copy = tensor.to("cpu", non_blocking=True)  # into pinned memory
    there = torch.cuda.current_stream(tensor.device).record_event()

    def take() -> Tensor:
        there.synchronize()
        return copy.clone()  # pinned memory is scarce

    return take
