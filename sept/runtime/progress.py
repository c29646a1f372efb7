"""Progress of long work: a bar with the remaining time on a terminal, an occasional line elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sept.runtime.signals import look

LINE_EVERY_S = 30.0


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields `advance(n)`; `total` is in the units of n (images, steps, rows); None when unknown.

    `advance` also raises a signal that has arrived.
    """
    with _bar(what, total) if sys.stderr.isatty() else _lines(what, total) as advance:

        def told(count: int) -> None:
            advance(count)
            look()

        yield told


def from_totals(advance: Callable[[int], None]) -> Callable[[int], None]:
    """Adapts `advance`, which takes increments, to work that reports totals."""
    before = 0

    def told(total: int) -> None:
        nonlocal before
        advance(total - before)
        before = total

    return told


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)


@contextmanager
def _lines(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    start = last = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last < LINE_EVERY_S or not done or done == total:
            return
        last, told = now, f"  {what}: {done:,}"
        if total:
            told += f" of {total:,}, {(now - start) * (total - done) / done:,.0f} s left"
        print(told, file=sys.stderr, flush=True)

    yield advance
