"""SEPT: scalable and efficient visual pre-training by selecting the data (AAAI 2023)."""

import os
from typing import Any

# Read when torch is first imported: spinning idle threads slow a run by 4 when processes share few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read when numpy is first imported: its products are small and run in several of our threads at a time, which would all
# wait for the same threads of OpenBLAS. Packing images takes four times as long with them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = ["embed", "pretrain", "run", "search", "select"]


def __getattr__(name: str) -> Any:
    """The functions of `sept.api`, imported on first use: the commands import only parts of this package."""
    if name in __all__:
        from sept import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
