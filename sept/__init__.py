"""SEPT: scalable and efficient visual pre-training by selecting the data (AAAI 2023)."""

import os
from typing import Any

# Read when torch is first imported: idle threads that spin cost a factor of 4 where processes share few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = ["embed", "pretrain", "run", "search", "select"]


def __getattr__(name: str) -> Any:
    """The functions of `sept.api`, imported at their first use: the commands import parts of this package alone."""
    if name in __all__:
        from sept import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
