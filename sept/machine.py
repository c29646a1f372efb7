"""What the work runs on, resolved from `hardware`; nothing here but the precision changes a result."""

import ctypes
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sept.config import Hardware
from sept.errors import ConfigError

Loggers = Callable[[str, Mapping[str, Any]], list]


def no_loggers(name: str, spec: Mapping[str, Any]) -> list:
    """The default of `Machine.loggers`: curves go to the CSV file alone."""
    return []


@dataclass(frozen=True)
class Machine:
    """accelerator: cpu or cuda. devices: processes that share a self-supervised training, of which this is the one
    of `rank`. chunk: images encoded at a time; None: the whole batch; auto: what fits. search_bytes: memory for what a
    search finds. precision: Lightning's name. loggers: further Lightning loggers, for a stage's name and spec."""

    accelerator: str = "cpu"
    devices: int = 1
    rank: int = 0
    workers: int = 0
    chunk: int | str | None = None
    compile: bool = False
    threads: int = 1
    search_bytes: int = 2**30
    precision: str = "32-true"
    checkpoint_every_s: float = 60.0
    loggers: Loggers = no_loggers

    def use_threads(self) -> None:
        """Let torch compute on this many cores."""
        import torch

        torch.set_num_threads(self.threads)


def resolve(hardware: Hardware, loggers: Loggers = no_loggers) -> Machine:
    """Choose what `auto` leaves open, without importing torch. Raises ConfigError for a GPU that is not there."""
    gpus = cuda_devices()
    if hardware.accelerator == "cuda" and not gpus:
        raise ConfigError("hardware.accelerator=cuda: the driver reports no CUDA device; use hardware.accelerator=cpu")
    accelerator = "cpu" if hardware.accelerator == "cpu" or not gpus else "cuda"
    if accelerator == "cuda" and hardware.devices > gpus:
        raise ConfigError(f"hardware.devices={hardware.devices}: the driver reports {gpus} CUDA devices")
    precision = {"auto": "32-true" if accelerator == "cpu" else "bf16-mixed", "32": "32-true"}.get(
        hardware.precision, hardware.precision
    )
    return Machine(
        accelerator=accelerator,
        devices=hardware.devices,
        workers=hardware.workers,
        chunk=hardware.chunk,
        compile=hardware.compile,
        threads=hardware.threads or _cores(),
        search_bytes=hardware.search_mib * 2**20,
        precision=precision,
        checkpoint_every_s=hardware.checkpoint_every_s,
        loggers=loggers,
    )


def _cores() -> int:
    """Cores this process may use, as far as the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cuda_devices() -> int:
    """How many CUDA devices the driver reports; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
