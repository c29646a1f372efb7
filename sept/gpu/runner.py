"""Runs checks one after the other within a time limit; an exception becomes a failed row and the next check runs."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from sept.gpu.card import Card
from sept.gpu.report import Result, Skip, table

Check = Callable[[Card], Result | Sequence[Result]]
Sections = Mapping[str, Mapping[str, Check]]
"""Checks by section and by the name that is shown while a check runs, and if it gives no result."""

REASON_CHARS = 300
SOON = 0.001  # seconds: a timer of 0 would be disabled


class OutOfTime(Exception):
    """The time limit was reached during a check."""

    def __init__(self) -> None:
        super().__init__("stopped at its time limit")


@dataclass(frozen=True)
class Budget:
    """seconds: from the start, after which no check is started and the running one is stopped."""

    start: float
    seconds: float

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.start

    @property
    def left(self) -> float:
        return self.seconds - self.elapsed


def run(sections: Sections, card: Card, budget: Budget) -> Iterator[Result]:
    """The results of all checks, in order; each section's table goes to stdout when it is done."""
    for section, checks in sections.items():
        found: list[Result] = []
        for name, check in checks.items():
            found += [replace(each, section=section) for each in _results(section, name, check, card, budget)]
        print(f"\n{section}", *table(found), sep="\n", flush=True)
        yield from found


def _results(section: str, name: str, check: Check, card: Card, budget: Budget) -> Sequence[Result]:
    over = f"the {budget.seconds / 60:g} minutes of --minutes have passed"
    if budget.left <= 0:
        return [Result(name, None, text=over)]
    print(f"[{budget.elapsed:4.0f} s] {section}: {name}", file=sys.stderr, flush=True)
    try:
        with stopping(budget.left):
            found = check(card)
    except Skip as why:
        return [Result(name, None, text=str(why))]
    except Exception as error:  # whatever stopped a check, it has failed; the next ones run
        _end_processes()
        return [Result(name, None, text=f"stopped: {over}") if budget.left <= 0 else _failed(name, error)]
    return [found] if isinstance(found, Result) else found


def _failed(name: str, error: Exception) -> Result:
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    first = next(iter(str(error).strip().splitlines()), "")
    return Result(name, False, text=f"{type(error).__name__}: {first}"[:REASON_CHARS])


@contextmanager
def stopping(seconds: float) -> Iterator[None]:
    """Context manager: raises OutOfTime after this many seconds, or those of an enclosing `stopping`."""

    def over(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before: Any = signal.signal(signal.SIGALRM, over)
    around, start = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, min(seconds, around or seconds))
    try:
        yield
    finally:
        left = max(SOON, around - (time.monotonic() - start)) if around else 0
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)


def _end_processes() -> None:
    """Ends processes that a check started, or this process would wait for them on exit."""
    for process in multiprocessing.active_children():
        process.kill()
