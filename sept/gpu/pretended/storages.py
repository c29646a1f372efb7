"""Ownership of storages: tags on CPU storages, and the memory in use on the simulated device."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sept.gpu.pretended.order import Clock, Mark, Unordered

ROUNDED = 512  # bytes: CUDA's allocator returns multiples of it
_TAG = "_pretended"

Placed = tuple[Tensor, Any, "Tag | None"]  # a tensor, its storage, and that one's tag


class Tag:
    """Of a storage that is on the device, or in pinned memory of the host; other storages have none.

    write: the last work that wrote it; reads: per stream the last work that read it. home: the stream that it was
    allocated on; kept_for: other streams that its memory is kept for (`record_stream`).
    """

    __slots__ = ("home", "kept_for", "memory", "on_device", "reads", "size", "write")

    def __init__(self, memory: "Memory", on_device: bool, size: int, home: int) -> None:
        self.memory, self.on_device, self.size, self.home = memory, on_device, size, home
        self.write: Mark | None = None
        self.reads: dict[int, int] = {}
        self.kept_for: set[int] = set()

    def __del__(self) -> None:
        if self.on_device:
            self.memory.freed(self)

    def marks(self) -> list[Mark]:
        """The last accesses to it."""
        return [*self.reads.items(), *([self.write] if self.write else [])]


class Memory:
    """Total, current and peak memory of the device, in bytes."""

    def __init__(self, total: int, clock: Clock) -> None:
        self.total, self.clock = total, clock
        self.held = self.peak = 0
        self._left: dict[int, list[Mark]] = {}  # by the stream whose memory was freed: other streams' work on it

    def put(self, tensor: Tensor, on_device: bool, home: int) -> Tag:
        """Tags the storage of a new tensor. Raises torch.OutOfMemoryError if the device has too little memory."""
        storage = tensor.untyped_storage()
        size = -(-storage.nbytes() // ROUNDED) * ROUNDED if on_device else 0
        if on_device:
            self._allocate(size, home)
        tag = Tag(self, on_device, size, home)
        setattr(storage, _TAG, tag)
        return tag

    def _allocate(self, size: int, home: int) -> None:
        if self.held + size > self.total:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. GPU 0 has a total capacity of "
                f"{self.total / 2**30:.2f} GiB of which {(self.total - self.held) / 2**20:.2f} MiB is free."
            )
        self.held += size
        self.peak = max(self.peak, self.held)
        for mark in self._left.pop(home, []) if size else []:
            if not self.clock.done(mark, by=home):
                raise Unordered(
                    f"memory of stream {home} was freed while stream {mark[0]} may still use it, and is reused: "
                    f"call tensor.record_stream, or let stream {home} wait for stream {mark[0]} first"
                )

    def freed(self, tag: Tag) -> None:
        self.held -= tag.size
        others = [mark for mark in tag.marks() if mark[0] != tag.home and mark[0] not in tag.kept_for]
        if others:
            self._left.setdefault(tag.home, []).extend(others)


def placed(tensor: Tensor) -> Placed | None:
    """None for tensors without a storage: sparse tensors and some subclasses."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    if tensor.layout != torch.strided:
        return None
    try:
        storage = tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None
    return tensor, storage, getattr(storage, _TAG, None)


def tag_of(tensor: Tensor) -> Tag | None:
    found = placed(tensor)
    return None if found is None else found[2]


def on_device(tensor: Tensor) -> bool:
    tag = tag_of(tensor)
    return tag is not None and tag.on_device


def tensors_in(x: Any) -> Iterator[Tensor]:
    """The tensors in an argument, including those in lists, tuples and dictionaries."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (list, tuple)):
        for each in x:
            yield from tensors_in(each)
    elif isinstance(x, dict):
        for each in x.values():
            yield from tensors_in(each)
