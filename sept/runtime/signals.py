"""Ctrl-C, SIGTERM and SIGUSR1: how they stop work without being mistaken for a failure of that work.

A signal raises Interrupted at the current instruction (`raising`), or is noted while a training step runs
(`remembered`). Interrupted is not an Exception, so that no `except Exception` takes it for a damaged image. Some code
swallows even that: a bare `except`, a destructor, a callback from C. So the signal is also remembered, and `look`
raises it again at the next check: wherever progress is reported, and before anything is committed or published.
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
    """State of this process. arrived: the name of the signal; depth: nesting of `raising` and `remembered`; held:
    nesting of `remembered` alone, inside which `look` does not raise and the loop stops itself."""

    arrived: str | None = None
    depth: int = 0
    held: int = 0


_state = _State()


@dataclass
class Flag:
    """Holds the name of the signal that arrived, if any."""

    received: str | None = None

    def listen(self) -> None:
        """From now on each signal sets the flag, replacing other handlers. For the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = _state.arrived = signal.Signals(number).name


def end_program() -> None:
    """From now on a signal ends the program at once with Interrupted's exit code: for a command's start and end, when
    no work is in progress that must be left in order. For the main thread of a command."""
    for number in SIGNALS:
        signal.signal(number, _exit)
    sys.unraisablehook = _unraisable
    atexit.register(_ignore)  # registered first, called last: Python then restores its handlers


def arrived() -> str | None:
    """The name of the signal that arrived since the outermost `raising` or `remembered` began, if any."""
    return _state.arrived


def look() -> None:
    """A check between units of work: raises Interrupted for a signal that has arrived, even if its exception was
    swallowed."""
    if _state.arrived is not None and not _state.held:
        raise stopped(_state.arrived)


def stopped(name: str) -> Interrupted:
    return Interrupted(f"stopped by {name}; the same command resumes from here")


@contextmanager
def raising() -> Iterator[None]:
    """Context manager: a signal raises Interrupted at the current instruction. For the main thread; elsewhere does
    nothing.

    An exception raised inside after a signal is attributed to it, and becomes Interrupted too.
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
    """Context manager: a signal sets the given flag, for a loop that stops at a safe point."""
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
    """Clears the signal when no work is in progress, so that it does not stop later work of this process."""
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
    """A signal in a destructor is raised again by `look`, so its traceback is not printed."""
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
