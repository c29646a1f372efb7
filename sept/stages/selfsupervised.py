"""What the retriever and the pre-training share: a learner fitted to views of a locally stored selection."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from sept.data.loading import StepSampler, loader
from sept.data.subset import Subset
from sept.data.views import CroppedSubset
from sept.fit import fit
from sept.learners.ibot import IBot
from sept.learners.moby import MoBy
from sept.machine import Machine


def fit_views(
    learner: MoBy | IBot,
    subset: Subset,
    batch_size: int,
    spec: Mapping[str, Any],
    folder: Path,
    machine: Machine,
    what: str,
) -> None:
    """Train `learner` on its own views of `subset` to its last step, in the order that spec["seed"] draws."""
    dataset = CroppedSubset(subset, learner.views)

    def batches(first: int) -> DataLoader:
        sampler = StepSampler(
            seed=spec["seed"], samples=len(subset), batch_size=batch_size, first=first, last=learner.steps
        )
        return loader(dataset, sampler, machine.workers)

    fit(learner, batches, folder, machine, what=what, loggers=machine.loggers(folder.name, spec))
