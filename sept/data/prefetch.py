"""The next batch goes to the device while this one is computed with."""

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Protocol

import torch

from sept.runtime.device import move, tensors_in


class Batched(Iterable, Sized, Protocol):
    """What a DataLoader is here: it has a length and can be gone through."""


class Prefetch:
    """The batches on the device, in their order, one ahead of the one in use; those of the CPU as they come.

    An iterable with a length, as Lightning takes one. What reading a batch raises is raised when that batch is due.
    Going through it can be given up anywhere: nothing is left running but the reading itself, which ends with it.
    """

    def __init__(self, batches: Batched, device: torch.device | str) -> None:
        self.batches, self.device = batches, torch.device(device)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches) if self.device.type == "cpu" else self._moved()

    def _moved(self) -> Iterator[Any]:
        read = iter(self.batches)
        lane = _Lane(self.device) if self.device.type == "cuda" and torch.cuda.is_available() else _NoLane(self.device)
        coming = _attempted(lane, read)
        while True:
            batch = coming()
            if batch is _END:
                return
            # Before this batch is used: its successor's copy runs beside that, however soon the host waits for it.
            coming = _attempted(lane, read)
            yield batch


_END = object()


class _NoLane:
    """Moves batches on the device's only queue of work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def send(self, batch: Any) -> Callable[[], Any]:
        """Begin to move a batch; what is returned gives it, ready for the work that is queued after that call."""
        moved = move(batch, self.device)
        return lambda: moved


class _Lane(_NoLane):
    """Moves batches on a CUDA stream of their own, beside the work on the current one."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.stream = torch.cuda.Stream(device)

    def send(self, batch: Any) -> Callable[[], Any]:
        with torch.cuda.stream(self.stream):
            moved = move(batch, self.device)
            there = self.stream.record_event()

        def take() -> Any:
            work = torch.cuda.current_stream(self.device)
            work.wait_event(there)
            for tensor in tensors_in(moved):
                tensor.record_stream(work)  # or its memory is the next batch's before the work on it is done
            return moved

        return take


def _attempted(lane: _NoLane, read: Iterator[Any]) -> Callable[[], Any]:
    """Read the next batch and begin to move it; what is returned gives it, or `_END`, or raises what reading raised."""
    try:
        return lane.send(next(read))
    except StopIteration:
        return lambda: _END
    except Exception as error:
        caught = error

        def fail() -> Any:
            raise caught

        return fail
