"""Ctrl-C, SIGTERM and SIGUSR1: raise between pieces of work, or be remembered while a training step runs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from sept.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass
class Flag:
    """The name of the signal that arrived, if one did."""

    received: str | None = None

    def listen(self) -> None:
        """Set the flag at each signal from now on, whatever was to be done at it. For the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name


@contextmanager
def raising() -> Iterator[None]:
    """Inside, a signal raises Interrupted where the program stands. For the main thread; elsewhere does nothing."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}; the same command goes on from here")

    with _handled_by(handler):
        yield


@contextmanager
def remembered() -> Iterator[Flag]:
    """Inside, a signal sets the flag that is given, for a loop that stops at a good moment."""
    flag = Flag()
    with _handled_by(flag._receive):
        yield flag


@contextmanager
def _handled_by(handler) -> Iterator[None]:  # type: ignore[no-untyped-def]
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
