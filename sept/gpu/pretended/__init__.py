"""A CUDA device that is not there: `with pretended() as device:` runs what is inside on the CPU as if it were.

Tensors are tensors of the CPU, with real numbers; a tag on their storage says that they are on the device. Python sees
`tensor.device == cuda:0`, `torch.cuda` answers, and Lightning trains on it. What a card refuses is refused: mixed
devices (`MixedDevices`), numpy of a tensor there, a generator of the other side, memory used by one stream while
another may still be at work on it (`Unordered`), more memory than `memory` bytes. What makes the host wait is counted,
as are operators launched and the bytes they move. Autocast casts as CUDA's does.

Not seen: kernels and their numbers, time, several devices, NCCL, what torch.compile makes (inside, it gives back what
it is given), saving a tensor (`torch.save` counts no wait), what is written through a numpy view after it was taken,
and the order of streams inside autograd's own backward pass. Memory counts what tensors hold: not the cache, the
context, or what CUDA's kernels need beside.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import _get_current_function_mode_stack as modes_in_use

import sept.runtime.hardware
from sept.gpu.pretended.cuda import accelerator_functions, cuda_functions
from sept.gpu.pretended.generators import Generator
from sept.gpu.pretended.operators import Operators
from sept.gpu.pretended.order import Unordered
from sept.gpu.pretended.python import Python
from sept.gpu.pretended.rules import MixedDevices
from sept.gpu.pretended.state import (
    BYTES,
    CUDA,
    FROM_DEVICE,
    OPERATORS,
    SCALARS,
    SIZES,
    TO_DEVICE,
    WAITS,
    Device,
    any_there,
)
from sept.gpu.pretended.storages import on_device, tag_of

__all__ = [
    "BYTES",
    "FROM_DEVICE",
    "OPERATORS",
    "SCALARS",
    "SIZES",
    "TO_DEVICE",
    "WAITS",
    "Device",
    "MixedDevices",
    "Unordered",
    "pretended",
]
MEMORY = 80 * 2**30  # bytes


@contextmanager
def pretended(bf16: bool = True, memory: int = MEMORY) -> Iterator[Device]:
    """Inside, there is one CUDA device, of `memory` bytes, with or without bfloat16 of its own; gives what it counts.

    Threads that are started inside see it as well, processes do not. Raises RuntimeError where there is one already.
    """
    if torch.cuda.is_available():
        raise RuntimeError("there is a CUDA device, or a pretended one, already")
    device = Device(memory, bf16)
    with ExitStack() as stack:
        python = Python(device)
        for owner, name, value in _patches(device, python):
            stack.enter_context(patch.object(owner, name, value))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".*CUDA is not available.*")
        stack.enter_context(Operators(device))
        stack.enter_context(python)
        yield device


def _patches(device: Device, python: Python) -> Iterator[tuple[Any, str, Any]]:
    """(owner, name, value) of what stands for another thing while the device is there."""
    for owner, functions in ((torch.cuda, cuda_functions(device)), (torch.accelerator, accelerator_functions(device))):
        for name, value in functions.items():
            if hasattr(owner, name):
                yield owner, name, value
    yield torch.cuda, "_initialized", True
    yield torch.cuda.amp.common, "amp_definitely_not_available", lambda: False
    yield torch, "Generator", Generator
    yield torch, "clear_autocast_cache", _clearing(python)
    yield torch.autograd, "_engine_run_backward", _backward(device, python)
    yield torch.autograd.graph.saved_tensors_hooks, "__init__", _saving(python)
    yield torch.Tensor, "record_stream", _record_stream
    yield torch._C, "_group_tensors_by_device_and_dtype", _grouping()
    yield torch, "compile", _compiled
    yield threading.Thread, "run", _thread(device)
    yield sept.runtime.hardware, "cuda_devices", lambda: 1


def _clearing(python: Python) -> Any:
    real = torch.clear_autocast_cache

    def clear() -> None:
        python.autocast.kept.clear()
        real()

    return clear


def _backward(device: Device, python: Python) -> Any:
    """Hooks, checkpoints and functions of one's own run inside a backward pass, which torch treats as one function:
    they see the device too."""
    real = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def run(tensors: Any, *args: Any, **options: Any) -> Any:
        with ExitStack() as stack:
            stack.enter_context(device.making(any_there(list(tensors))))
            stack.enter_context(_seeing(python))
            return real(tensors, *args, **options)

    return run


def _saving(python: Python) -> Any:
    """Hooks are given what a backward pass is to find, and asked for it, from inside functions of torch."""
    real = torch.autograd.graph.saved_tensors_hooks.__init__

    def seen(hook: Any) -> Any:
        def run(x: Any) -> Any:
            with _seeing(python):
                return hook(x)

        return run

    def init(hooks: Any, pack_hook: Any, unpack_hook: Any, **options: Any) -> None:
        real(hooks, seen(pack_hook), seen(unpack_hook), **options)

    return init


def _seeing(python: Python) -> Any:
    """Inside a function of torch: Python code that it calls sees the device."""
    return nullcontext() if any(isinstance(mode, Python) for mode in modes_in_use()) else python


def _record_stream(tensor: torch.Tensor, stream: Any) -> None:
    """For Tensor.record_stream, which takes streams of a card alone."""
    tag = tag_of(tensor)
    if tag is None or not tag.on_device:
        raise RuntimeError("record_stream is for tensors on a device")
    tag.kept_for.add(stream.number)


def _grouping() -> Any:
    """What optimisers and clipping sort their lists of tensors by: torch looks at the devices without asking Python."""
    real = torch._C._group_tensors_by_device_and_dtype

    def group(lists: list[list[Any]], with_indices: bool = False) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        sides = [on_device(tensor) for tensor in lists[0]]
        for there in set(sides):
            places = [place for place, side in enumerate(sides) if side == there]
            part = [[each[place] for place in places] if each else [] for each in lists]
            for (device, kind), (tensors, indices) in real(part, with_indices).items():
                found[CUDA if there else device, kind] = tensors, [places[index] for index in indices]
        return found

    return group


def _compiled(function: Any = None, **options: Any) -> Any:
    """torch.compile, which cannot look through what pretends: as if it were not asked for."""
    return function if function is not None else _compiled


def _thread(device: Device) -> Any:
    """torch keeps modes by the thread."""
    real = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        with Operators(device), Python(device):
            real(thread)

    return run
