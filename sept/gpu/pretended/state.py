"""Shared state of a simulated device: memory, clock, counters, and per-thread context."""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import PurePath
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from sept.gpu.pretended.order import HOST, Clock, Unordered
from sept.gpu.pretended.storages import Memory, Tag, on_device, placed, tag_of, tensors_in

CUDA = torch.device("cuda", 0)
TO_DEVICE, FROM_DEVICE = "copies to the device", "copies from the device"
SCALARS, SIZES = "scalars read", "sizes read"
WAITS = (TO_DEVICE, FROM_DEVICE, SCALARS, SIZES)  # of the host for the device
OPERATORS, BYTES = "operators", "bytes"  # launched on the device, and read and written by them there
_OTHERS = ("lightning", "torchvision", "timm", "torchmetrics")  # packages to which a wait outside sept is attributed
_HERE = PurePath(__file__).parent.parent


class Here(threading.local):
    """Context of a thread. factories: whether new tensors are created on the device. target: where a copy, or a tensor
    made like another, goes if not to the same side. unseen: inside checks that torch makes only on CPUs."""

    factories = False
    target: bool | None = None
    unseen = False


class Device:
    """One pretended CUDA device. counts: by the names above, and "`name` bytes" for copies. where: (name, place)."""

    def __init__(self, memory: int, bf16: bool) -> None:
        self.device, self.bf16, self.clock, self.here = CUDA, bf16, Clock(), Here()
        self.memory = Memory(memory, self.clock)
        self.counts: Counter[str] = Counter()
        self.where: Counter[tuple[str, str]] = Counter()

    @property
    def waits(self) -> int:
        """How often the host waited for the device."""
        return sum(self.counts[name] for name in WAITS)

    def count_wait(self, name: str, size: int = 0) -> None:
        """The host waits for the current stream; size: bytes copied."""
        if self.here.unseen:
            return
        self.clock.wait()
        self.counts[name] += 1
        if size:
            self.counts[f"{name} bytes"] += size
        self.where[name, caller()] += 1

    def use(self, tag: Tag, by: int, write: bool) -> None:
        """Raises Unordered if `by`, a stream or the host, uses memory that another may still be using."""
        if not self.clock.done(tag.write, by):
            raise Unordered(f"{_name(by)} uses what {_name(tag.write[0])} may not have written yet: {REMEDY}")  # type: ignore[index]
        if write:
            for mark in tag.reads.items():
                if not self.clock.done(mark, by):
                    raise Unordered(f"{_name(by)} overwrites what {_name(mark[0])} may still be reading: {REMEDY}")

    def read_by_host(self, tensor: Tensor, write: bool = False) -> None:
        """The host reads the values of a host tensor."""
        tag = tag_of(tensor)
        if tag is not None and not tag.on_device:
            self.use(tag, HOST, write)

    def put(self, x: Any, there: bool = True, but: Any = ()) -> None:
        """Puts fresh tensors of `x` on the device, or into pinned memory; those whose storage is in `but` stay."""
        for tensor in tensors_in(x):
            found = placed(tensor)
            if found is None or found[2] is not None or found[0].device.type != "cpu":
                continue
            if not any(found[1] is storage for storage in but):
                self.memory.put(found[0], there, self.clock.stream)

    @contextmanager
    def making(self, there: bool) -> Iterator[None]:
        """Context manager: new tensors are created on the device, or on the host."""
        before, self.here.factories = self.here.factories, there
        try:
            yield
        finally:
            self.here.factories = before

    @contextmanager
    def towards(self, there: bool) -> Iterator[None]:
        """Context manager: a copy, or a tensor made like another, goes to the device, or to the host."""
        before, self.here.target = self.here.target, there
        try:
            yield
        finally:
            self.here.target = before


REMEDY = "wait for it (event, wait_stream, synchronize)"


def _name(by: int) -> str:
    return "the host" if by == HOST else f"stream {by}"


def wants_device(device: Any) -> bool:
    """Whether that is the simulated device. Raises RuntimeError for a second one, as CUDA does."""
    kind = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if kind.type == "cuda" and kind.index not in (None, 0):
        raise RuntimeError(f"CUDA error: invalid device ordinal: {kind}, there is one device")
    return kind.type == "cuda"


def any_there(*xs: Any) -> bool:
    return any(on_device(tensor) for tensor in tensors_in(xs))


def caller() -> str:
    """The innermost line of sept on the stack, "sept/training/loop.py:12", with that of a package that it called:
    "sept/training/loop.py:12 in torchvision/ops/boxes.py:30"."""
    frame: FrameType | None = sys._getframe(1)
    other = ""
    while frame is not None:
        ours, name = _known(frame.f_code.co_filename)
        if ours:
            return f"{name}:{frame.f_lineno}{' in ' if other else ''}{other}"
        if name and not other:
            other = f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return other or "elsewhere"


@cache
def _known(path: str) -> tuple[bool, str]:
    """Whether a file belongs to sept, except the files here, and its name; None for unknown files."""
    file = PurePath(path)
    if file.is_relative_to(_HERE.parent):
        return (False, "") if file.is_relative_to(_HERE) else (True, str(file.relative_to(_HERE.parent.parent)))
    package = next((part for part in file.parts if part in _OTHERS), None)
    return False, "" if package is None else "/".join(file.parts[file.parts.index(package) :])
