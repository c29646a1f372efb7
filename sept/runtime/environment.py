"""What a scheduler or another program left in the environment, and libraries obey: who is the how-manieth of how many.

A training here knows its processes. Lightning, torch.distributed and timm believe these variables instead: with RANK=1
from `srun` a process that works alone would write no curves, and PL_TRAINER_LIMIT_TRAIN_BATCHES would train less.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = frozenset(
    (
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE"),
        *("ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    )
)
BEGINNINGS = (
    *("SLURM_", "JSM_", "LSB_", "PMI_", "PMIX_", "OMPI_COMM_", "MPI_LOCAL", "MV2_COMM_"),  # schedulers and MPI
    *("TORCHELASTIC_", "TORCHCOMM_", "PET_"),  # torchrun
    *("PL_TRAINER_", "PL_GLOBAL_SEED", "PL_SEED_WORKERS"),  # arguments of Lightning
)


def misleading() -> dict[str, str]:
    """Those of the environment's variables that say it."""
    return {name: value for name, value in os.environ.items() if name in NAMES or name.startswith(BEGINNINGS)}


def forget() -> None:
    """For a process of ours, which is told its place anew."""
    for name in misleading():
        del os.environ[name]


@contextmanager
def forgotten() -> Iterator[None]:
    """Inside, they are not there; after, they are as before, for what a scheduler's own code asks of them."""
    before = misleading()
    forget()
    try:
        yield
    finally:
        forget()
        os.environ |= before
