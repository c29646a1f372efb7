"""Processes of which one fails while the other waits for it in a collective.

New processes import this file, so it imports little.
"""

import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist

from sept.errors import NonFiniteError
from sept.runtime.hardware import Runtime

RAISED = "raised on purpose"
WHEN = "failed"  # file with the time


def raising(folder: Path, runtime: Runtime) -> None:
    """The second process raises."""
    there = _joined(runtime)
    if runtime.rank == 1:
        _note(folder)
        raise NonFiniteError(RAISED)
    _wait_for_others(there)


def killed(folder: Path, runtime: Runtime) -> None:
    """The second process is killed."""
    there = _joined(runtime)
    if runtime.rank == 1:
        _note(folder)
        os.kill(os.getpid(), signal.SIGKILL)
    _wait_for_others(there)


def _note(folder: Path) -> None:
    (folder / WHEN).write_text(str(time.time()))


def seconds_since(folder: Path) -> float:
    """Since one of them failed."""
    return time.time() - float((folder / WHEN).read_text())


def _joined(runtime: Runtime) -> torch.device:
    """The device of this process, once all are in a group."""
    on_cards = runtime.accelerator == "cuda"
    there = torch.device("cuda", runtime.rank) if on_cards else torch.device("cpu")
    if on_cards:
        torch.cuda.set_device(there)
    dist.init_process_group("nccl" if on_cards else "gloo")
    _wait_for_others(there)
    return there


def _wait_for_others(there: torch.device) -> None:
    numbers = torch.ones(1, device=there)
    dist.all_reduce(numbers)
    numbers.cpu()
