"""The parts of torch.cuda and torch.accelerator used by the project, Lightning and torch, for a simulated device."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch

from sept.gpu.pretended.order import DEFAULT, Event, Stream
from sept.gpu.pretended.state import CUDA, Device, wants_device

NAME = "pretended device"
CAPABILITY = {True: (8, 0), False: (7, 5)}  # with and without native bfloat16


def cuda_functions(device: Device) -> dict[str, Any]:
    """By their names in torch.cuda."""
    return _facts(device) | _memory(device) | _streams(device) | _generators()


def accelerator_functions(device: Device) -> dict[str, Any]:
    """By their names in torch.accelerator, which are mostly those of torch.cuda."""
    cuda = cuda_functions(device)
    return cuda | {
        "current_accelerator": lambda check_available=False: torch.device("cuda"),
        "current_device_index": cuda["current_device"],
        "current_device_idx": cuda["current_device"],
        "set_device_index": _chosen,
        "set_device_idx": _chosen,
        "get_memory_info": cuda["mem_get_info"],
    }


def _chosen(which: Any = None) -> None:
    """Raises RuntimeError for a device that does not exist."""
    if which is not None and not (isinstance(which, int) and which < 0):
        wants_device(which)


def _facts(device: Device) -> dict[str, Any]:
    major, minor = CAPABILITY[device.bf16]
    properties = SimpleNamespace(
        name=NAME, major=major, minor=minor, total_memory=device.memory.total, multi_processor_count=1
    )

    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return device.bf16 or including_emulation

    @contextmanager
    def chosen(which: Any) -> Iterator[None]:
        _chosen(which)
        yield

    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": _chosen,
        "device": chosen,
        "device_of": lambda tensor: nullcontext(),
        "get_device_name": lambda which=None: NAME,
        "get_device_capability": lambda which=None: (major, minor),
        "get_device_properties": lambda which=None: properties,
        "get_arch_list": lambda: [f"sm_{major}{minor}"],
        "is_bf16_supported": is_bf16_supported,
    }


def _memory(device: Device) -> dict[str, Any]:
    memory = device.memory

    def reset_peak(which: Any = None) -> None:
        memory.peak = memory.held

    return {
        "mem_get_info": lambda which=None: (memory.total - memory.held, memory.total),
        "memory_allocated": lambda which=None: memory.held,
        "max_memory_allocated": lambda which=None: memory.peak,
        "memory_stats": lambda which=None: {
            "allocated_bytes.all.current": memory.held,
            "allocated_bytes.all.peak": memory.peak,
        },
        "memory_reserved": lambda which=None: memory.held,
        "max_memory_reserved": lambda which=None: memory.peak,
        "reset_peak_memory_stats": reset_peak,
        "reset_max_memory_allocated": reset_peak,
        "empty_cache": lambda: None,
        "ipc_collect": lambda: None,
    }


def _streams(device: Device) -> dict[str, Any]:
    clock = device.clock
    event = type("Event", (Event,), {"clock": clock})
    stream = type("Stream", (Stream,), {"clock": clock, "event_type": event})

    def set_stream(new: Any) -> None:
        clock.stream = new.number

    return {
        "Event": event,
        "Stream": stream,
        "stream": lambda new: nullcontext() if new is None else new,
        "StreamContext": lambda new: nullcontext() if new is None else new,
        "set_stream": set_stream,
        "current_stream": lambda which=None: stream(number=clock.stream),
        "default_stream": lambda which=None: stream(number=DEFAULT),
        "synchronize": lambda which=None: clock.wait_for_all(),
        "is_current_stream_capturing": lambda: False,
    }


def _generators() -> dict[str, Any]:
    """The device draws from the CPU's generator."""
    state, restore = torch.get_rng_state, torch.set_rng_state

    def restore_all(states: Any) -> None:
        for each in states:
            restore(each)

    return {
        "manual_seed": lambda seed: None,  # torch.manual_seed has seeded the CPU's
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda which=CUDA: state(),
        "set_rng_state": lambda new, which=CUDA: restore(new),
        "get_rng_state_all": lambda: [state()],
        "set_rng_state_all": restore_all,
    }
