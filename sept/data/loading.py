"""Batches by step: what step t reads depends on (seed, t) alone, whatever the workers, ranks or interruptions."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from sept.data.crew import Beginning, Crewed
from sept.data.rng import permutation
from sept.errors import ConfigError
from sept.runtime.lifeline import Program

Place = tuple[int, int]  # (epoch, sample)


class StepSampler(Sampler[list[Place]]):
    """The batches of steps `first` to `last` - 1, each the (epoch, sample) pairs of this rank's share.

    Every epoch visits a permutation of the samples drawn from (seed, epoch) and drops the incomplete last batch;
    with fewer samples than a batch holds, the batch is all of them. Raises ConfigError for a batch that does not split.
    """

    def __init__(
        self, *, seed: int, samples: int, batch_size: int, first: int, last: int, rank: int = 0, world: int = 1
    ) -> None:
        self.batch = min(batch_size, samples)
        if self.batch % world:
            raise ConfigError(f"a batch of {self.batch} images does not split over hardware.devices={world}")
        self.seed, self.samples, self.first, self.last = seed, samples, first, last
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[Place]]:
        per_epoch, share = self.samples // self.batch, self.batch // self.world
        drawn, order = -1, permutation(self.seed, 0, self.samples)
        for step in range(self.first, self.last):
            epoch, position = divmod(step, per_epoch)
            if epoch != drawn:
                drawn, order = epoch, permutation(self.seed, epoch, self.samples)
            start = position * self.batch + self.rank * share
            yield [(epoch, int(sample)) for sample in order[start : start + share]]


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Whole batches in an epoch; one, of all samples, when there are fewer than a batch."""
    return samples // min(batch_size, samples)


@dataclass(frozen=True)
class Batches:
    """What a training reads: batches of `batch_size` of the dataset's samples, in the order that `seed` draws."""

    dataset: Dataset
    samples: int
    batch_size: int
    seed: int
    join: Callable[[list], dict[str, Any]] | None = None  # of a batch's samples; None: `collate`

    def between(
        self, first: int, last: int, workers: int, rank: int = 0, world: int = 1, pin: bool = False
    ) -> DataLoader:
        """The batches of steps `first` to `last` - 1, or of each the share of a rank."""
        sampler = StepSampler(
            seed=self.seed,
            samples=self.samples,
            batch_size=self.batch_size,
            first=first,
            last=last,
            rank=rank,
            world=world,
        )
        return loader(self.dataset, sampler, workers, self.join, pin)


def loader(
    dataset: Dataset,
    batches: Sampler | Sequence,
    workers: int,
    join: Callable[[list], dict[str, Any]] | None = None,
    pin: bool = False,
) -> DataLoader:
    """Batches in the sampler's order, read by at most `workers` processes (0: by this one), joined by `collate` or
    `join`. A worker reads whole batches: more than there are would start for nothing, and one batch needs none.

    pin: they go to the CUDA device that the process has made its current one, and are put in pinned memory for it.
    """
    workers = min(workers, len(batches)) if len(batches) > 1 else 0  # type: ignore[arg-type]
    if workers:
        # Each worker is forked from a process that has these imported, which saves it seconds.
        multiprocessing.set_forkserver_preload(["sept.runtime.forked", "__main__", __name__, type(dataset).__module__])
    return Crewed(
        dataset,
        batch_sampler=batches,
        collate_fn=join or collate,
        num_workers=workers,
        pin_memory=pin and torch.cuda.is_available(),
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=Beginning(Program.this()) if workers else None,
    )


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack what samples hold: tensors, lists of tensors (one stack a position), numbers; strings stay a list.

    torch's own collation of tensors: in a worker it stacks straight into the memory that the batch is handed over in.
    """
    batch: dict[str, Any] = {}
    for name, value in samples[0].items():
        column = [sample[name] for sample in samples]
        if isinstance(value, list):
            batch[name] = [default_collate(list(views)) for views in zip(*column, strict=True)]
        elif isinstance(value, str):
            batch[name] = column
        else:
            batch[name] = default_collate(column) if isinstance(value, Tensor) else torch.tensor(column)
    return batch
