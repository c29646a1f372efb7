"""A small embedding in many shards, and works that go wrong: what the workers of the engines' tests import."""

import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from sept import engines
from sept.errors import SeptError
from sept.runtime.hardware import Runtime

SHARDS, ROWS_PER_SHARD, DIM = 120, 3, 16
PAUSE_S = 0.01  # of the work on a shard, so that kills meet it
TWO = Runtime(threads=2, devices=2)


def vectors(first: int, last: int) -> np.ndarray:
    """(last - first, DIM) float16 of unit length, each a function of its row alone."""
    drawn = np.stack([np.random.default_rng(row).standard_normal(DIM) for row in range(first, last)])
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


def embedder(folder: Path, device: str):
    """Commits the rows of a shard by a rename, and logs that it is at it."""
    with open(folder / ".log", "a") as log:
        log.write(f"{device}\n")

    def work(shard: int) -> None:
        with open(folder / ".log", "a") as log:
            log.write(f"{shard}\n")
        aside = folder / f".{shard}-{os.getpid()}"
        with open(aside, "wb") as file:
            np.save(file, vectors(shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD))
            time.sleep(PAUSE_S)
        os.replace(aside, folder / f"shard-{shard:06d}.npy")

    return work


def logged(folder: Path) -> Counter[str]:
    """How often a worker started on each device, and began each shard."""
    return Counter((folder / ".log").read_text().split())


def once_started(folder: Path, workers: int, shard: int) -> None:
    """A callback that lets the work go on when so many have started."""
    deadline = time.monotonic() + 60
    while logged(folder)["cpu"] < workers:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("shard-*")}


def missing(folder: Path) -> list[int]:
    return [shard for shard in range(SHARDS) if not (folder / f"shard-{shard:06d}.npy").exists()]


def program(path: str) -> None:
    folder = Path(path)
    try:
        engines.run("local", partial(embedder, folder), missing(folder), TWO, folder)
    except SeptError as error:
        sys.exit(error.exit_code)


def failing(error: Exception, device: str):
    def work(shard: int) -> None:
        raise error

    return work


def refusing(error: Exception, device: str):
    raise error


def dying(folder: Path, shards: dict[int, int], device: str):
    """Each of `shards` kills its worker as often as said; the others are embedded."""
    work = embedder(folder, device)

    def dies(shard: int) -> None:
        deaths = len(list(folder.glob(f".death-{shard}-*")))
        if deaths < shards.get(shard, 0):
            (folder / f".death-{shard}-{deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        work(shard)

    return dies


def failed_starts(device: str):
    os._exit(3)


def leaving(folder: Path, device: str):
    """The first worker dies, but a process of its own lives on and holds all that it had open."""
    work = embedder(folder, device)

    def leaves(shard: int) -> None:
        with suppress(FileExistsError):
            (folder / ".left").touch(exist_ok=False)
            if os.fork():
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(15)
            os._exit(0)
        work(shard)

    return leaves
