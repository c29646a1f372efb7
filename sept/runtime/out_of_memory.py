"""A GPU's memory that ran out, told in one line: the numbers, and which settings help. Imports no torch."""

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from sept.errors import OutOfMemory

ASKED, TOTAL, FREE = (
    re.compile(before + r"([\d.]+ \w+)") for before in ("Tried to allocate ", "total capacity of ", "of which ")
)
SIGNS = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """What torch says in many words, with its numbers; None for another failure."""
    torch = sys.modules.get("torch")
    kind = getattr(torch, "OutOfMemoryError", ())
    text = str(error)
    if not isinstance(error, kind) and not (isinstance(error, RuntimeError) and any(sign in text for sign in SIGNS)):
        return None
    asked, total, free = (found and found[1] for found in (pattern.search(text) for pattern in (ASKED, TOTAL, FREE)))
    if asked is None:
        return OutOfMemory(f"a GPU's memory ran out ({text.partition(chr(10))[0].strip()})")
    card = f", {free or 'less'} was free of the card's {total}" if total else ""
    return OutOfMemory(f"a GPU's memory ran out: {asked} more was asked for{card}")


@contextmanager
def translated(stage: str = "", remedy: str = "") -> Iterator[None]:
    """Inside, a GPU's memory that runs out raises OutOfMemory, here or in a process of the work; with what to set.

    What the failed work holds is let go: the next cell of a sweep has the card to itself.
    """
    try:
        yield
    except Exception as error:
        found = error if isinstance(error, OutOfMemory) else out_of_memory(error)
        if found is None:
            raise
        traceback.clear_frames(error.__traceback__)
        told = f"{stage}: {found}" if stage else str(found)
        raise OutOfMemory(f"{told}; set {remedy}" if remedy else told) from None
