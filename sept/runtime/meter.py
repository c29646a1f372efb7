"""What a piece of work uses: CPU seconds of this program and the processes it started, and energy where it is measured.

Energy comes from counters: of the processor packages (RAPL), which count the whole machine and which many systems let
only root read; and of NVIDIA GPUs (NVML, with the package nvidia-ml-py). What cannot be read is None, never a guess.
"""

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

EVERY_S = 10.0  # RAPL's counter of a busy server starts again after some ten minutes
RAPL = Path("/sys/class/powercap")
PARENT, USED = 1, slice(11, 15)  # fields of /proc/PID/stat after the name: own and waited-for user and system time
MICRO, MILLI = 1e-6, 1e-3  # joules
Used = dict[str, float | None]
"""cpu_s, gpu_s: seconds of cores and of GPUs. cpu_j, gpu_j: joules of the processor packages and of the GPUs, or
None."""


def nothing() -> Used:
    return {"cpu_s": 0.0, "gpu_s": 0.0, "cpu_j": None, "gpu_j": None}


def added(first: Mapping[str, float | None], second: Mapping[str, float | None]) -> Used:
    """Both together; what only one of them has is its own."""
    total: Used = {}
    for name in nothing():
        known = [value for each in (first, second) if (value := each.get(name)) is not None]
        total[name] = round(sum(known), 3) if known else None
    return total


@contextmanager
def measured(gpus: int, note: Callable[[Used], None]) -> Iterator[Callable[[], Used]]:
    """Measures while the context lasts; calls `note` every few seconds and at the end, so that little is lost when the
    process is killed. gpus: how many the work holds. Yields what has been used so far."""
    meter, ended = _Meter(gpus), threading.Event()

    def look() -> None:
        while not ended.wait(EVERY_S):
            note(meter.read())

    thread = threading.Thread(target=look, name="meter", daemon=True)
    thread.start()
    try:
        yield meter.read
    finally:
        ended.set()
        thread.join()
        note(meter.read())


class _Meter:
    """Differences of counters since it was made."""

    def __init__(self, gpus: int) -> None:
        self.gpus, self.lock, self.began = gpus, threading.Lock(), time.monotonic()
        self.cpu_s, self.packages = cpu_seconds(), _packages()
        self.cards = _cards(gpus)
        self.gpu_j = [card() for card in self.cards]

    def read(self) -> Used:
        with self.lock:
            for package in self.packages:
                package.look()
            cards = [card() - first for card, first in zip(self.cards, self.gpu_j, strict=True)]
            return {
                "cpu_s": round(max(0.0, cpu_seconds() - self.cpu_s), 3),
                "gpu_s": round(self.gpus * (time.monotonic() - self.began), 3),
                "cpu_j": round(sum(package.joules for package in self.packages), 3) if self.packages else None,
                "gpu_j": round(sum(cards), 3) if cards else None,
            }


def cpu_seconds() -> float:
    """Of this process and of all that descend from it, as long as they ran; of those that ended, if their parent waited
    for them."""
    if sys.platform != "linux":
        return sum(os.times()[:4])
    ticks, children = os.sysconf("SC_CLK_TCK"), dict[int, list[int]]()
    used: dict[int, int] = {}
    for folder in os.listdir("/proc"):
        if folder.isdigit():
            with suppress(OSError, ValueError, IndexError):  # it has just ended
                stat = Path(f"/proc/{folder}/stat").read_text(errors="replace").rpartition(") ")[2].split()
                used[int(folder)] = sum(map(int, stat[USED]))
                children.setdefault(int(stat[PARENT]), []).append(int(folder))
    total, left = 0, [os.getpid()]
    while left:
        pid = left.pop()
        total += used.get(pid, 0)
        left += children.get(pid, [])
    return total / ticks


class _Package:
    """The energy of a processor package, whose counter starts again at `most`."""

    def __init__(self, folder: Path) -> None:
        self.counter = folder / "energy_uj"
        self.most = int((folder / "max_energy_range_uj").read_text())
        self.last, self.joules = int(self.counter.read_text()), 0.0

    def look(self) -> None:
        with suppress(OSError, ValueError):
            now = int(self.counter.read_text())
            self.joules += (now - self.last) % (self.most + 1) * MICRO
            self.last = now


def _packages() -> list[_Package]:
    """Those whose counters may be read; none unless it is all."""
    found = []
    for name in sorted(RAPL.glob("intel-rapl:*")):
        if name.name.count(":") == 1:  # else a part of one
            try:
                found.append(_Package(name))
            except (OSError, ValueError):
                return []
    return found


def _cards(gpus: int) -> list[Callable[[], float]]:
    """Functions that read the joules of each GPU since its driver was loaded; none unless it is all."""
    if not gpus:
        return []
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        named = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
        wanted = named[:gpus] or [str(index) for index in range(gpus)]
        handles = [
            nvml.nvmlDeviceGetHandleByIndex(int(each)) if each.isdigit() else nvml.nvmlDeviceGetHandleByUUID(each)
            for each in wanted
        ]
        counters: list[Callable[[], float]] = [partial(_joules, nvml, handle) for handle in handles]
        for counter in counters:
            counter()
    except Exception:  # no such package, driver, card or counter: NVML has errors of its own
        return []
    return counters


def _joules(nvml: Any, handle: Any) -> float:
    return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * MILLI


def device(gpus: int) -> str:
    """What the work runs on, in words: `2 x NVIDIA H100`, or the processor's name."""
    torch = sys.modules.get("torch")
    if gpus and torch is not None and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return name if gpus == 1 else f"{gpus} x {name}"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    import platform

    return platform.processor() or platform.machine()
