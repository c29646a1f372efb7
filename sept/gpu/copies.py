"""GB per second: between host and device, and from disk."""

import os
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from sept.gpu.card import Card
from sept.gpu.report import Result, Skip
from sept.gpu.runner import Check

GB, RATE = 1e9, "GB/s"
COPIED, READ = 2**28, 2**31  # bytes
MICRO = 2**24, 2**26
PIECE = 2**24  # bytes read at a time
REPEATS = 3
SPARE = 2  # times the file size: required free space


def to_device(card: Card) -> list[Result]:
    size = card.size(COPIED, MICRO[0])
    results = []
    with card.on():
        there = torch.empty(size, dtype=torch.uint8, device="cuda")
        for name, pinned in (("pinned", True), ("pageable", False)):
            here = torch.zeros(size, dtype=torch.uint8, pin_memory=pinned)
            ways = {"host to device": partial(_copy, there, here), "device to host": partial(_copy, here, there)}
            results += [
                Result(
                    f"{label}, {name}", True, size / GB / card.seconds(way), text=f"{size / 2**20:.0f} MiB", unit=RATE
                )
                for label, way in ways.items()
            ]
    return results


def _copy(into: Tensor, source: Tensor) -> None:
    into.copy_(source, non_blocking=True)


def disk(card: Card) -> list[Result]:
    """Reads a file just written, after asking the system to drop its cache, which cannot be verified."""
    size, path = card.size(READ, MICRO[1]), card.folder / "disk"
    if shutil.disk_usage(card.folder).free < SPARE * size:
        raise Skip(f"{card.folder} has no space for a file of {size / GB:.1f} GB")
    _write(path, size)
    forgotten = []
    for _ in range(REPEATS):
        _forget(path)
        forgotten.append(_read(path))
    again = [_read(path) for _ in range(REPEATS)]
    path.unlink()
    text = f"{size / GB:.2g} GB in {card.folder.parent}"
    return [
        Result(
            "disk",
            True,
            size / GB / median(forgotten),
            text=f"{text}; from the page cache, unless it was dropped",
            unit=RATE,
        ),
        Result("page cache", True, size / GB / median(again), text=text, unit=RATE),
    ]


def _write(path: Path, size: int) -> None:
    piece = os.urandom(PIECE)
    with path.open("wb") as file:
        for _ in range(size // PIECE):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _forget(path: Path) -> None:
    """Asks the system to drop the file from its cache."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(path: Path) -> float:
    """Seconds to read it all."""
    buffer, start = bytearray(PIECE), time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


CHECKS: Mapping[str, Check] = {"copies": to_device, "disk": disk}
