"""Environment variables of schedulers and other programs (rank, world size) that libraries obey.

Our training knows its own processes, but Lightning, torch.distributed and timm believe these variables: with RANK=1
from `srun` a single process would write no curves, and PL_TRAINER_LIMIT_TRAIN_BATCHES would shorten training.
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
    """The names of those variables that are set."""
    return {name: value for name, value in os.environ.items() if name in NAMES or name.startswith(BEGINNINGS)}


def forget() -> None:
    """Removes them, in one of our processes, which then gets its own rank."""
    for name in misleading():
        del os.environ[name]


@contextmanager
def forgotten() -> Iterator[None]:
    """Context manager without these variables; restored afterwards, for a scheduler's own code."""
    before = misleading()
    forget()
    try:
        yield
    finally:
        forget()
        os.environ |= before
