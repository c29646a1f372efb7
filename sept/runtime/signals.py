"""Ctrl-C, SIGTERM and SIGUSR1: what they stop, and how nothing takes them for a failure of what they stopped.

A signal raises Interrupted where the program stands (`raising`), or is noted while a training step runs (`remembered`).
Interrupted is no Exception, so that no `except Exception` makes a damaged image of it. Some code swallows even that: a
bare `except`, a destructor, a callback from C. So the signal is kept too, and `look` raises it again at the next
boundary of work: wherever progress is told, and before anything is committed or published.
"""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from sept.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
Handler = Callable[[int, FrameType | None], None]


@dataclass
class _State:
    """Of this process. arrived: the name of the signal; depth: of `raising` and `remembered` inside each other; held:
    of `remembered` alone, inside which `look` leaves it to the loop to stop."""

    arrived: str | None = None
    depth: int = 0
    held: int = 0


_state = _State()


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
        self.received = _state.arrived = signal.Signals(number).name


def end_program() -> None:
    """From now on a signal ends the program at once with Interrupted's exit code: for a command's start and end, when
    nothing is under way that `raising` would have to leave in order. For the main thread of a command."""
    for number in SIGNALS:
        signal.signal(number, _exit)
    sys.unraisablehook = _unraisable
    atexit.register(_ignore)  # first, so it is called last: what then comes gives handlers back, and would be killed


def arrived() -> str | None:
    """The name of the signal that came since the outermost `raising` or `remembered` began, if one did."""
    return _state.arrived


def look() -> None:
    """A boundary of work: raises Interrupted for a signal that came, and that something may have swallowed."""
    if _state.arrived is not None and not _state.held:
        raise stopped(_state.arrived)


def stopped(name: str) -> Interrupted:
    return Interrupted(f"stopped by {name}; the same command goes on from here")


@contextmanager
def raising() -> Iterator[None]:
    """Inside, a signal raises Interrupted where the program stands. For the main thread; elsewhere does nothing.

    What fails inside after a signal came failed by it, and becomes Interrupted too.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        _state.arrived = signal.Signals(number).name
        raise stopped(_state.arrived)

    try:
        with _handled_by(handler):
            look()
            yield
            look()
    except Exception as error:
        if _state.arrived is None:
            raise
        raise stopped(_state.arrived) from error
    finally:
        _forget()


@contextmanager
def remembered() -> Iterator[Flag]:
    """Inside, a signal sets the flag that is given, for a loop that stops at a good moment."""
    flag = Flag()
    _state.held += 1
    try:
        with _handled_by(flag._receive):
            yield flag
    finally:
        _state.held -= 1
        _forget()


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    _state.depth += 1
    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, handler)
        yield
    finally:
        _state.depth -= 1
        for number, previous in before.items():
            signal.signal(number, previous)


def _forget() -> None:
    """Once nothing is under way any more: the next work of this process is not stopped by it."""
    if not _state.depth:
        _state.arrived = None


def _exit(number: int, frame: FrameType | None) -> None:
    line = f"error: {stopped(signal.Signals(number).name)}\n"
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line.encode())  # buffered streams may be in use
    os._exit(Interrupted.exit_code)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """A signal in a destructor is raised again by `look`: no traceback says so."""
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
