"""Copies between host and device called from Python, with their gradients."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sept.gpu.pretended.state import CUDA, Device, wants_device
from sept.gpu.pretended.storages import on_device


@dataclass(frozen=True)
class Move:
    """there: to the device, to the host, or None: stay. later: without waiting. copy: even if nothing changes."""

    there: bool | None
    dtype: torch.dtype | None
    later: bool = False
    copy: bool = False
    memory_format: torch.memory_format | None = None


def place_of(there: bool, dtype: torch.dtype) -> Move:
    return Move(there, dtype)


def parsed(func: Any, args: tuple, kwargs: dict[str, Any]) -> Move:
    """The arguments of Tensor.to, .cuda, .cpu or .type_as as a `Move`."""
    rest, named = args[1:], dict(kwargs)
    if func is Tensor.cpu:
        return Move(False, None, memory_format=named.get("memory_format"))
    if func is Tensor.cuda:
        device = rest[0] if rest else named.get("device")
        later = bool(rest[1] if len(rest) > 1 else named.get("non_blocking"))
        return Move(wants_device(CUDA if device is None else device), None, later)
    other = rest[0] if rest and isinstance(rest[0], Tensor) else named.pop("other", None)
    copy = bool(named.pop("copy", False))
    if other is not None:
        later = bool(rest[1] if len(rest) > 1 else named.get("non_blocking"))
        return Move(on_device(other), other.dtype, later, copy, named.get("memory_format"))
    device, dtype, later, memory_format = torch._C._nn._parse_to(*rest, **named)
    copy = copy or (rest[-1:] == (True,) and len(rest) == (4 if device is not None else 3))
    return Move(None if device is None else wants_device(device), dtype, later, copy, memory_format)


def moved(device: Device, source: Tensor, move: Move) -> Tensor:
    """`source` moved by `move`; itself if nothing changes."""
    was = on_device(source)
    if move.there is None or move.there == was:
        with device.making(was):
            return source.to(move.dtype or source.dtype, copy=move.copy, memory_format=_format(move))
    if source.requires_grad and torch.is_grad_enabled():
        result: Tensor = _Moved.apply(source, device, move)
        return result
    return _copied(device, source, move)


def _copied(device: Device, source: Tensor, move: Move) -> Tensor:
    with device.making(bool(move.there)), device.towards(bool(move.there)):
        return torch.ops.aten._to_copy.default(
            source, dtype=move.dtype, non_blocking=move.later, memory_format=_format(move)
        )


def _format(move: Move) -> torch.memory_format:
    return move.memory_format or torch.preserve_format


class _Moved(torch.autograd.Function):
    """The gradient goes back to the tensor's device and type."""

    @staticmethod
    def forward(source: Tensor, device: Device, move: Move) -> Tensor:  # type: ignore[override]
        return _copied(device, source, move)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        source, ctx.device, move = inputs
        ctx.back = Move(not move.there, source.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return moved(ctx.device, gradient, ctx.back), None, None
