"""Properties of the machine, one line each."""

import importlib.metadata
import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from sept.gpu.card import Card, cores
from sept.gpu.report import Result
from sept.gpu.runner import Check
from sept.runtime.hardware import cuda_devices
from sept.store.build import commit, versions

SHARED_MEMORY, LEAST_SHARED = Path("/dev/shm"), 2**30  # bytes: batches of MoBy in the hands of some workers
DRIVER, CPU = Path("/proc/driver/nvidia/version"), Path("/proc/cpuinfo")
BESIDE = ("timm", "lightning", "torchvision", "torchmetrics")
GIB = 2**30


def software(card: Card) -> list[Result]:
    code = commit()
    known = "unknown: not in a git checkout" if code is None else f"{code['sha'][:12]}{'*' if code['dirty'] else ''}"
    beside = [Result(name, True, version(name)) for name in BESIDE]
    return [
        Result("python", True, f"{platform.python_version()}, {versions()['platform']}"),
        Result("torch", True, torch.__version__),
        *beside,
        Result("sept", True, known, text="* with uncommitted changes" if known.endswith("*") else ""),
    ]


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def cuda(card: Card) -> list[Result]:
    """The driver, torch's CUDA, and whether they work together."""
    built, reported = torch.version.cuda, cuda_devices()
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [
        Result("torch's CUDA", True, built or "none: this torch is for CPUs"),
        Result("driver", True, driver()),
        Result("cards that torch can use", seen == reported, seen, f"{reported}, as the driver reports"),
    ]


def driver() -> str:
    """Version of the kernel's driver."""
    try:
        text = DRIVER.read_text()
    except OSError:
        return "none"
    match = re.search(r"Module\s+(?:for \S+\s+)?([\d.]+)", text)
    return match[1] if match else text.splitlines()[0]


def cards(card: Card) -> list[Result]:
    if not card.real:
        return [Result("card", None, text="no CUDA device here; a simulated one is used")]
    return [result for which in range(card.count) for result in one_card(which)]


def one_card(which: int) -> list[Result]:
    major, minor = torch.cuda.get_device_capability(which)
    free, total = torch.cuda.mem_get_info(which)
    native = (major, minor) >= (8, 0)
    slower = "" if native else "training and embedding run in float32"
    return [
        Result(f"card {which}", True, torch.cuda.get_device_name(which), text=f"compute capability {major}.{minor}"),
        Result(f"card {which}, memory", True, f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"),
        Result(f"card {which}, native bfloat16", True, native, text=slower),
    ]


def host(card: Card) -> list[Result]:
    name = next((line.partition(":")[2].strip() for line in _lines(CPU) if line.startswith("model name")), "")
    return [Result("cores", True, cores(), text=name or platform.machine()), shared_memory(card)]


def shared_memory(card: Card) -> Result:
    """The shared memory through which data workers pass batches."""
    if not SHARED_MEMORY.is_dir():
        return Result("/dev/shm", None, text="this system has none")
    usage = shutil.disk_usage(SHARED_MEMORY)
    return Result(
        "/dev/shm",
        usage.free >= LEAST_SHARED,
        f"{usage.free / GIB:.2f} GiB free of {usage.total / GIB:.2f}",
        f"at least {LEAST_SHARED / GIB:g} GiB free",
        "" if usage.free >= LEAST_SHARED else "data workers will die: docker run --shm-size=8g, or hardware.workers=0",
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


CHECKS: Mapping[str, Check] = {"software": software, "CUDA": cuda, "cards": cards, "host": host}
