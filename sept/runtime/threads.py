"""Work on many items by several threads, its results in the order of the items."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

AHEAD = 4  # items per thread in progress or finished ahead of their turn, to bound memory

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """The results of `work` for the items, in order; an exception is raised when the turn of its item comes.

    For work that releases the GIL, as image decoders do: threads share their reader. Meanwhile torch uses one thread
    for each of them: with as many as there are cores, those of several resizes wait for each other, and packing takes
    four times as long. Warnings are ignored, because decoders silence those of Pillow, which is not thread-safe.
    """
    if threads <= 1:
        yield from map(work, items)
        return
    import torch

    waiting: deque[Future[Result]] = deque()
    of_torch = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(of_torch)
