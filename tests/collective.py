"""Work of a process that fails alone, in the middle of what all do together or beside the others; imports little, as
new processes do it.
"""

import os
import signal
import time

import torch
import torch.distributed as dist

from sept.errors import NonFiniteError
from sept.runtime.hardware import Runtime

STEPS, AT = 10, 5


def alone(how: str, runtime: Runtime) -> None:
    """The second process fails before a sum of all that the first waits in. how: bug, memory or kill."""
    dist.init_process_group("gloo", rank=runtime.rank, world_size=runtime.devices)
    numbers = torch.ones(1000)
    for step in range(STEPS):
        if runtime.rank == 1 and step == AT:
            _fail(how)
        dist.all_reduce(numbers)


def _fail(how: str) -> None:
    if how == "bug":
        raise RuntimeError("a bug")
    if how == "memory":
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 79.15 GiB "
            "of which 1.20 GiB is free."
        )
    os.kill(os.getpid(), signal.SIGKILL)


def fail_on_second(runtime: Runtime) -> None:
    if runtime.rank == 1:
        raise NonFiniteError("the second one failed")
    time.sleep(600)


def die_on_second(runtime: Runtime) -> None:
    if runtime.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def interrupt_parent(runtime: Runtime) -> None:
    if runtime.rank == 1:
        os.kill(os.getppid(), signal.SIGUSR1)
    time.sleep(600)
