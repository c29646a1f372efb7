"""CUDA streams and events, with no-op stand-ins on a CPU.

A lane is a CUDA stream, a mark an event in it. On a CPU all work is done when it is launched: lanes and marks then do
nothing, so that the same code serves both.
"""

from types import TracebackType
from typing import Any

import torch


def on_host(device: str | torch.device) -> bool:
    """Whether a device is the host's CPU."""
    return torch.device(device).type == "cpu"


def has_lanes(device: str | torch.device) -> bool:
    """Whether work on this device is asynchronous."""
    return torch.device(device).type == "cuda" and torch.cuda.is_available()


class Mark:
    """A point in a lane: everything launched in the lane before it."""

    def __init__(self, event: Any = None) -> None:
        self.event = event

    def wait(self) -> None:
        """Blocks the calling thread until the work before the mark is done."""
        if self.event is not None:
            self.event.synchronize()


class Lane:
    """A context manager: work inside is launched in this lane. The caller's lane is the current one outside."""

    def __init__(self, device: str | torch.device, own: bool = False) -> None:
        """own: a new lane; else the caller's."""
        self.stream: Any = None
        if has_lanes(device):
            self.stream = torch.cuda.Stream(device) if own else torch.cuda.current_stream(device)
        self._inside: Any = None

    def mark(self) -> Mark:
        """A mark after everything launched in this lane so far."""
        if self.stream is None:
            return Mark()
        event = torch.cuda.Event(blocking=True)  # a waiting host yields its core to the readers
        event.record(self.stream)
        return Mark(event)

    def after(self, mark: Mark) -> None:
        """Later work in this lane waits for the mark; the host does not."""
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
