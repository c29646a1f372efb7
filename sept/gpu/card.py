"""What the checks run on: a CUDA card or, without one, a simulated one at micro size."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from sept.gpu.pretended import pretended
from sept.runtime.hardware import Runtime, cuda_devices

MOST_THREADS = 8  # of the CPU that a card is compared with
NEVER = float("inf")
T = TypeVar("T")


@dataclass(frozen=True)
class Card:
    """real: not simulated. count: number of cards. folder: for the files of checks.

    kept: results of checks that others reuse.
    """

    real: bool
    count: int
    folder: Path
    kept: dict[str, Any] = field(default_factory=dict)

    def on(self) -> AbstractContextManager:
        """Context manager in which torch has the device; reference results are computed outside."""
        return nullcontext() if self.real else pretended()

    def size(self, full: T, micro: T) -> T:
        """The size for the device."""
        return full if self.real else micro

    @property
    def bf16(self) -> bool:
        """Whether it supports bfloat16 natively."""
        return not self.real or torch.cuda.is_bf16_supported(including_emulation=False)

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(0) if self.real else "pretended device"

    def runtime(self, precision: str = "32-true", **changes: Any) -> Runtime:
        """The runtime of a training on the device."""
        return self._machine("cuda", precision, changes)

    def cpu(self, **changes: Any) -> Runtime:
        """The reference runtime: the CPU, in float32."""
        return self._machine("cpu", "32-true", changes)

    def _machine(self, accelerator: str, precision: str, changes: dict[str, Any]) -> Runtime:
        threads = min(MOST_THREADS, cores()) if self.real else 1
        given: dict[str, Any] = {"threads": threads, "precision": precision, "checkpoint_every_s": NEVER}
        return Runtime(accelerator, **{**given, **changes})

    @property
    def fast(self) -> str:
        """The precision of full-size work."""
        return "bf16-mixed" if self.bf16 else "32-true"

    def autocast(self) -> AbstractContextManager:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.bf16)

    def seconds(self, run: Callable[[], Any], repeats: int = 5) -> float:
        """Median of some synchronised runs after a warm-up run. Call it `on` the card."""
        times = []
        for _ in range(repeats + 1):
            torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return median(times[1:])


def found(folder: Path) -> Card:
    """The card of this machine, or a simulated one."""
    real = cuda_devices() > 0 and torch.cuda.is_available()
    return Card(real, torch.cuda.device_count() if real else 0, folder)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
