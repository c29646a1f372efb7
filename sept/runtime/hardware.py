"""What the work runs on, resolved from `hardware`; only the precision changes a result."""

import ctypes
import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from sept.errors import ConfigError
from sept.runtime import driver
from sept.runtime.settings import Hardware

MOST_WORKERS = 16  # per device with `auto`: more are no faster than the GPU, and each takes memory
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
LARGE_BYTES = 32 << 20  # the most that glibc takes: larger ones are always returned
MOST_KEPT_BYTES = 2**31 - 1
Loggers = Callable[[str, Mapping[str, Any]], list]  # makes Lightning loggers for a stage's name and spec
log = logging.getLogger(__name__)


def no_loggers(name: str, spec: Mapping[str, Any]) -> list:
    """No loggers besides the CSV file."""
    return []


@dataclass(frozen=True)
class Runtime:
    """accelerator: cpu, cuda, or cuda:N in a process that has one of several. devices: number of processes that share a
    self-supervised training; `rank` is this one's. workers: per device. chunk: images encoded at a time; None: the
    whole batch; auto: what fits. search_bytes: memory for the results of a search. precision: Lightning's name."""

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

    def configure_torch(self) -> None:
        """Configures torch in this process: threads, device, and full float32 precision (by default convolutions on a
        GPU, but not matrix products, use TF32)."""
        import torch

        torch.set_num_threads(self.threads)
        deterministic: Any = torch.utils.deterministic  # its types do not name this
        deterministic.fill_uninitialized_memory = False  # never read; filling takes 4 % of a step
        _keep_freed_memory()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in some versions; torch.compile reads it, and it must agree
            torch.backends.cudnn.allow_tf32 = False
        backends: Any = torch.backends  # its types do not name all parts
        for part in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
            part.fp32_precision = "ieee"
        self.select_device()

    def select_device(self) -> None:
        """Makes its GPU the current one of this process, so that nothing (pinned memory, a stream) opens a context on
        another. On the CPU torch is not imported."""
        kind, _, index = self.accelerator.partition(":")
        if kind != "cuda":
            return
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(int(index) if index else self.rank)

    def release(self) -> None:
        """Frees a stage's GPU memory, which the next one may need: trainer and learner are in a reference cycle."""
        torch = sys.modules.get("torch")
        if self.accelerator != "cpu" and torch is not None:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _keep_freed_memory() -> None:
    """Memory of freed tensors stays with the process for its next ones. By default glibc returns that of large ones to
    the system, which clears it again page by page. Does nothing where the C library is another."""
    with suppress(OSError, AttributeError):
        c = ctypes.CDLL(None)
        c.mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        c.mallopt(TRIM_THRESHOLD, MOST_KEPT_BYTES)


def resolve(hardware: Hardware) -> Runtime:
    """Resolves `auto`, without importing torch.

    Raises ConfigError for a GPU that is missing, that torch cannot use or that lacks the requested precision.
    """
    accelerator = _accelerator(hardware)
    return Runtime(
        accelerator=accelerator,
        devices=hardware.devices,
        workers=_workers(hardware, accelerator, cores()),
        chunk=hardware.chunk,
        compile=hardware.compile,
        threads=hardware.threads or cores(),
        search_bytes=hardware.search_mib * 2**20,
        precision=_precision(hardware, accelerator),
        checkpoint_every_s=hardware.checkpoint_every_s,
    )


def _accelerator(hardware: Hardware) -> str:
    """Existing GPUs are used or an error is raised: silently running for days on the CPU would be a surprise."""
    if hardware.accelerator == "cpu":
        return "cpu"
    gpus = cuda_devices()
    if not gpus:
        why = driver.why_none()
        if hardware.accelerator == "cuda":
            why = why or "the driver reports no CUDA device"
            raise ConfigError(f"hardware.accelerator=cuda: {why}; or use hardware.accelerator=cpu")
        if why:
            _tell(f"hardware.accelerator=auto uses the CPU: {why}")
        return "cpu"
    if hardware.devices > gpus:
        raise ConfigError(f"hardware.devices={hardware.devices}: the driver reports {gpus} CUDA devices")
    if why := driver.why_unusable():
        raise ConfigError(f"hardware.accelerator={hardware.accelerator}: {why}")
    return "cuda"


def _precision(hardware: Hardware, accelerator: str) -> str:
    """Lightning's name of the precision; auto is bf16-mixed on GPUs that support it."""
    asked = {"32": "32-true"}.get(hardware.precision, hardware.precision)
    if accelerator == "cpu":
        return "32-true" if asked == "auto" else asked
    without = next((card for card in driver.cards(hardware.devices) if not card.has_bf16), None)
    if without is None:
        return "bf16-mixed" if asked == "auto" else asked
    lacks = f"{without.name} (compute capability {without.capability[0]}.{without.capability[1]}) has no bfloat16"
    if asked == "bf16-mixed":
        raise ConfigError(f"hardware.precision=bf16-mixed: {lacks}; use hardware.precision=32")
    if asked == "auto":
        _tell(f"hardware.precision=auto is 32: {lacks}")
    return "32-true"


def _workers(hardware: Hardware, accelerator: str, cores: int) -> int:
    """Data workers per device. With `auto` none on the CPU: torch computes on the same cores, and a worker's batches
    would have to be copied as well."""
    if hardware.workers != "auto":
        return int(hardware.workers)
    return 0 if accelerator == "cpu" else min(MOST_WORKERS, max(1, cores // hardware.devices))


def cores() -> int:
    """Cores this process may use, as far as the system reports."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cuda_devices() -> int:
    """How many CUDA devices the driver reports; 0 without a driver."""
    found = driver.open_driver()
    return 0 if found is None else found.devices()


@cache
def _tell(line: str) -> None:
    """Once per process, as a sweep resolves its hardware for every cell."""
    log.warning(line)
