"""Streams and events that are not there: work is done at once, and each access to memory is checked for its order.

A worker is the host or a lane. What a worker knows to be done it learns from marks (an event waited for) and, a lane,
from the host that gave it the work. An access to a buffer of which an earlier one by another worker is not known to be
done raises Unordered, whether or not the values came out right this time.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sept.retrieval import ahead, lanes
from sept.retrieval.compact import Compact
from sept.retrieval.features import Features

HOST, CALLERS = "the host", "the caller's lane"


class Unordered(AssertionError):
    """Two accesses to a buffer that a GPU could do in either order."""


class Clocks:
    """Times of the host and of each lane, and which of them each thread and each lane knows to have passed."""

    def __init__(self) -> None:
        self.time: Counter[Any] = Counter()
        self.known: dict[Any, Counter[Any]] = {}
        self.inside: list[Any] = [CALLERS]  # lanes that the main thread is in
        self.lock = threading.RLock()
        self.seen: dict[int, tuple[torch.UntypedStorage, dict[tuple[Any, bool], int]]] = {}

    def here(self) -> Any:
        """Who knows: this thread of the host."""
        return threading.get_ident()

    def knows(self, worker: Any) -> Counter[Any]:
        return self.known.setdefault(worker, Counter())

    def learn(self, worker: Any, more: Counter[Any]) -> None:
        with self.lock:
            self.known[worker] = self.knows(worker) | more

    def give_out(self, lane: Any) -> None:
        """Work that the host gives to a lane comes after all that the host did, and knew to be done."""
        self.learn(lane, self.knows(self.here()) | Counter({HOST: self.time[HOST], lane: self.time[lane]}))

    def touch(self, storage: torch.UntypedStorage, worker: Any, writes: bool, what: str) -> None:
        with self.lock:
            known = self.knows(self.here() if worker == HOST else worker)
            _, seen = self.seen.setdefault(storage.data_ptr(), (storage, {}))  # held: no address comes twice
            for (other, wrote), at in seen.items():
                if (writes or wrote) and other != worker and known[other] < at:
                    raise Unordered(f"{what} by {worker} after {other}")
            self.time[worker] += 1
            seen[worker, writes] = self.time[worker]

    def touch_array(self, array: np.ndarray, writes: bool, what: str) -> None:
        """By this thread of the host."""
        address = array.__array_interface__["data"][0]
        with self.lock:
            for start, (storage, _) in self.seen.items():
                if start <= address < start + max(1, storage.nbytes()):
                    self.touch(storage, HOST, writes, what)


class Checked(TorchDispatchMode):
    """Every operator is work of the lane that it is given to; reading a number where a copy brings it, of the host."""

    def __init__(self, clocks: Clocks) -> None:
        super().__init__()
        self.clocks = clocks
        self.brought: set[int] = set()  # addresses that copies go to which the host does not wait for

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._schema.name
        if func.is_view or name.startswith("aten::empty"):
            return func(*args, **kwargs)
        if name == "aten::_local_scalar_dense":
            storage = args[0].untyped_storage()
            if storage.data_ptr() in self.brought:
                self.clocks.touch(storage, HOST, False, name)
            return func(*args, **kwargs)
        worker = self.clocks.inside[-1]
        self.clocks.give_out(worker)
        if name == "aten::copy_" and len(args) > 2 and args[2]:
            self.brought.add(args[0].untyped_storage().data_ptr())
        for place, each in enumerate(func._schema.arguments):
            value = kwargs.get(each.name, args[place] if place < len(args) else None)
            self._touch(value, worker, each.alias_info is not None and each.alias_info.is_write, name)
        made = func(*args, **kwargs)
        self._touch(made, worker, True, name)
        return made

    def _touch(self, value: Any, worker: Any, writes: bool, name: str) -> None:
        for tensor in tree_leaves(value):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self.clocks.touch(tensor.untyped_storage(), worker, writes, name)


class Unpinned(TorchFunctionMode):
    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **{key: value for key, value in (kwargs or {}).items() if key != "pin_memory"})


class Stream:
    def __init__(self, clocks: Clocks, lane: Any) -> None:
        self.clocks, self.lane = clocks, lane

    def wait_event(self, event: "Event") -> None:
        self.clocks.learn(self.lane, event.known)


class Event:
    def __init__(self, clocks: Clocks) -> None:
        self.clocks, self.known = clocks, Counter[Any]()

    def record(self, stream: Stream) -> None:
        self.clocks.give_out(stream.lane)
        self.known = self.clocks.knows(stream.lane).copy()

    def synchronize(self) -> None:
        self.clocks.learn(self.clocks.here(), self.known)


@contextmanager
def pretended(patch: pytest.MonkeyPatch) -> Iterator[Clocks]:
    """The CPU is a device with lanes."""
    clocks = Clocks()

    @contextmanager
    def stream(inside: Stream) -> Iterator[None]:
        clocks.inside.append(inside.lane)
        yield
        clocks.inside.pop()

    def noted(function: Any, writes: bool, what: str) -> Any:
        def noting(*args: Any) -> Any:
            for array in args:
                if isinstance(array, np.ndarray):
                    clocks.touch_array(array, writes, what)
            return function(*args)

        return noting

    numbers = iter(range(1000))
    patch.setattr(torch.cuda, "Stream", lambda device: Stream(clocks, f"lane {next(numbers)}"))
    patch.setattr(torch.cuda, "Event", lambda **options: Event(clocks))
    patch.setattr(torch.cuda, "current_stream", lambda device: Stream(clocks, CALLERS))
    patch.setattr(torch.cuda, "stream", stream)
    patch.setattr(lanes, "on_host", lambda device: False)
    patch.setattr(lanes, "has_lanes", lambda device: True)
    patch.setattr(Features, "read", noted(Features.read, True, "reading a file"))
    patch.setattr(Compact, "read", noted(Compact.read, True, "reading a file"))
    patch.setattr(ahead, "take_in", noted(ahead.take_in, False, "taking in hits"))
    with Unpinned(), Checked(clocks):
        yield clocks
