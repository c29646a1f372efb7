"""Random generators on a simulated device. They draw the CPU's numbers, not CUDA's."""

from typing import Any

import torch

from sept.gpu.pretended.state import CUDA, wants_device

_REAL = torch._C.Generator


class DeviceGenerator(_REAL):  # type: ignore[misc]
    """torch.Generator(device="cuda")."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA


class _Kind(type):
    """Metaclass that creates the right generator, and accepts every generator as an instance."""

    def __call__(cls, device: Any = "cpu") -> torch._C.Generator:
        return DeviceGenerator() if wants_device(device) else _REAL(device=device)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _REAL)


class Generator(metaclass=_Kind):
    """Replaces torch.Generator."""


def require_generator(func: Any, args: tuple, kwargs: dict[str, Any], there: bool) -> None:
    """Raises RuntimeError if the generator's device differs from that of the result."""
    for each in (*args, *kwargs.values()):
        if isinstance(each, _REAL) and each.device.type != ("cuda" if there else "cpu"):
            expected = "cuda" if there else "cpu"
            name = getattr(func, "__name__", func)
            raise RuntimeError(
                f"Expected a '{expected}' device type for generator but found '{each.device.type}' ({name})"
            )
