"""What NVIDIA's driver reports about the GPUs, and for which CUDA torch was built; queried without importing torch and
without a context on any card."""

import ctypes
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

LIBRARY = "libcuda.so.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE, of cuInit
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
BF16_SINCE = (8, 0)  # compute capability (Ampere)
NAME_CHARS = 100
REMEDY = "or run on the CPU with hardware.accelerator=cpu"


@dataclass(frozen=True)
class Card:
    """capability: CUDA's, (major, minor). memory: bytes in all."""

    name: str
    capability: tuple[int, int]
    memory: int

    @property
    def has_bf16(self) -> bool:
        """Whether it supports bfloat16 natively; older cards emulate it, slower than float32."""
        return self.capability >= BF16_SINCE


class Driver:
    """The driver's library, initialised. status: the result of cuInit, 0 for success."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.status = int(library.cuInit(0))

    def devices(self) -> int:
        """The number of cards visible to this process."""
        return 0 if self.status else self._number("cuDeviceGetCount")

    def version(self) -> tuple[int, int]:
        """The newest CUDA it supports, (major, minor)."""
        number = self._number("cuDriverGetVersion")
        return number // 1000, number % 1000 // 10

    def card(self, place: int) -> Card:
        """The card with this index among those visible to this process."""
        card = self._number("cuDeviceGet", place)
        major, minor = (self._number("cuDeviceGetAttribute", which, card) for which in (MAJOR, MINOR))
        memory, name = ctypes.c_size_t(0), ctypes.create_string_buffer(NAME_CHARS)
        self._library.cuDeviceTotalMem_v2(ctypes.byref(memory), card)
        self._library.cuDeviceGetName(name, NAME_CHARS, card)
        return Card(name.value.decode(errors="replace"), (major, minor), memory.value)

    def _number(self, call: str, *arguments: int) -> int:
        """The value that a call writes into its first argument, an int; 0 when it fails."""
        value = ctypes.c_int(0)
        return value.value if getattr(self._library, call)(ctypes.byref(value), *arguments) == 0 else 0


def open_driver() -> Driver | None:
    """The driver of this machine; None without one."""
    try:
        return Driver(ctypes.CDLL(LIBRARY))
    except OSError:
        return None


def cards(count: int) -> list[Card]:
    """The first `count` cards, those that are used; none if the driver cannot be queried."""
    driver = open_driver()
    return [] if driver is None else [driver.card(place) for place in range(min(count, driver.devices()))]


def why_none() -> str | None:
    """Why an installed driver reports no card, in words; None without a driver."""
    driver = open_driver()
    if driver is None or driver.devices():
        return None
    if driver.status not in (0, NO_DEVICE):
        return f"the NVIDIA driver is installed but does not start (cuInit: error {driver.status}); see `nvidia-smi`"
    hidden = os.environ.get(VISIBLE)
    if hidden is not None:
        return f"the environment's {VISIBLE}={hidden!r} hides every CUDA device; unset it or name existing cards"
    return None


@dataclass(frozen=True)
class TorchBuild:
    """torch's version, and the CUDA (major, minor) it was built for; None: built without CUDA."""

    version: str
    cuda: tuple[int, int] | None


def torch_build() -> TorchBuild | None:
    """The installed torch, from its version file; None if that has an unexpected form."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return None
    version = re.search(r"^__version__\b[^=\n]*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b[^=\n]*=\s*(?:None|['\"](\d+)\.(\d+))", text, re.MULTILINE)
    if version is None or cuda is None:
        return None
    return TorchBuild(version[1], (int(cuda[1]), int(cuda[2])) if cuda[1] else None)


def why_unusable() -> str | None:
    """Why this torch cannot use the cards that the driver reports, in words; None if it can, or if that is unknown.

    A torch runs on any driver of its CUDA's major version ("minor version compatibility") and on newer ones.
    """
    driver, build = open_driver(), torch_build()
    if driver is None or build is None or not driver.devices():
        return None
    reported, newest = driver.devices(), driver.version()
    supports = f"the driver reports {reported} CUDA devices and supports CUDA {newest[0]}.{newest[1]}"
    if build.cuda is None:
        return (
            f"{supports}, but torch {build.version} was built without CUDA: install one for CUDA {newest[0]}, {REMEDY}"
        )
    if build.cuda[0] > newest[0] > 0:
        return (
            f"{supports}, but torch {build.version} was built for CUDA {build.cuda[0]}.{build.cuda[1]}: update the "
            f"driver, install a torch for CUDA {newest[0]}, {REMEDY}"
        )
    return None
