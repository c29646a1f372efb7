"""Work that a GPU does one after the other in a lane, and beside other lanes.

A lane is a stream of CUDA, a mark an event in it. On a CPU all work is done when it is given out: lanes and marks are
then there and do nothing, so that one path of code serves both.
"""

from types import TracebackType
from typing import Any

import torch


def on_host(device: str | torch.device) -> bool:
    """Whether a device is the processor that this runs on."""
    return torch.device(device).type == "cpu"


def has_lanes(device: str | torch.device) -> bool:
    """Whether work for this device is done later than it is given out."""
    return torch.device(device).type == "cuda" and torch.cuda.is_available()


class Mark:
    """A place in a lane: everything given to the lane before it."""

    def __init__(self, event: Any = None) -> None:
        self.event = event

    def wait(self) -> None:
        """Hold the calling thread until the work before the mark is done."""
        if self.event is not None:
            self.event.synchronize()


class Lane:
    """In a `with`, work goes into this lane. The caller's own lane is the one that its other work goes into."""

    def __init__(self, device: str | torch.device, own: bool = False) -> None:
        """own: a new lane; else the caller's."""
        self.stream: Any = None
        if has_lanes(device):
            self.stream = torch.cuda.Stream(device) if own else torch.cuda.current_stream(device)
        self._inside: Any = None

    def mark(self) -> Mark:
        """What was given to this lane so far."""
        if self.stream is None:
            return Mark()
        event = torch.cuda.Event(blocking=True)  # a host that waits leaves its core to the readers
        event.record(self.stream)
        return Mark(event)

    def after(self, mark: Mark) -> None:
        """What is given to this lane from now on waits for the mark; the host does not."""
        if self.stream is not None and mark.event is not None:
            self.stream.wait_event(mark.event)

    def __enter__(self) -> "Lane":
        if self.stream is not None:
            self._inside = torch.cuda.stream(self.stream)
            self._inside.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inside is not None:
            self._inside.__exit__(kind, error, trace)
            self._inside = None
