"""A simulated ("pretended") CUDA device: `with pretended() as device:` runs the code inside on the CPU as if on a GPU.

Tensors are CPU tensors with real values; a tag on their storage marks them as on the device. Python sees `tensor.device
== cuda:0`, `torch.cuda` works, and Lightning trains on it. The errors of a real card are raised: mixed devices
(`MixedDevices`), numpy of a device tensor, a generator of the wrong device, memory used by one stream while another may
still use it (`Unordered`), more memory than `memory` bytes. Synchronisations of the host are counted, as are launched
operators and the bytes they move. Autocast casts as on CUDA.

Not simulated: kernels and their numerics, time, several devices, NCCL, torch.compile (a no-op inside), the
synchronisation of saving a tensor (`torch.save`), writes through a numpy view after it was taken, and the order of
streams inside autograd's own backward pass. Memory counts tensors only, not the cache, the context, or workspaces of
CUDA's kernels.
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
    """Context manager with one CUDA device, of `memory` bytes, with or without native bfloat16; yields its counters.

    Threads started inside see it too, processes do not. Raises RuntimeError if there is a CUDA device already.
    """
    if torch.cuda.is_available():
        raise RuntimeError("there is already a CUDA device, or a pretended one")
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
    """(owner, name, value) of the attributes patched while the device exists."""
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
    """Makes hooks, checkpoints and custom functions see the device inside a backward pass, which torch treats as one
    function."""
    real = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def run(tensors: Any, *args: Any, **options: Any) -> Any:
        with ExitStack() as stack:
            stack.enter_context(device.making(any_there(list(tensors))))
            stack.enter_context(_seeing(python))
            return real(tensors, *args, **options)

    return run


def _saving(python: Python) -> Any:
    """Saved-tensor hooks are called from inside torch functions, and must see the device too."""
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
    """Makes Python code that is called inside a torch function see the device."""
    return nullcontext() if any(isinstance(mode, Python) for mode in modes_in_use()) else python


def _record_stream(tensor: torch.Tensor, stream: Any) -> None:
    """Replaces Tensor.record_stream, which accepts only a real card's streams."""
    tag = tag_of(tensor)
    if tag is None or not tag.on_device:
        raise RuntimeError("record_stream is for tensors on a device")
    tag.kept_for.add(stream.number)


def _grouping() -> Any:
    """Replaces the grouping of tensors in optimisers and clipping, where torch reads devices without calling Python."""
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
    """Replaces torch.compile, which cannot trace the simulation, by a no-op."""
    return function if function is not None else _compiled


def _thread(device: Device) -> Any:
    """Enables the modes in new threads, as torch keeps them per thread."""
    real = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        with Operators(device), Python(device):
            real(thread)

    return run
