"""MoBy on the selected images; leaves a backbone that timm loads in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sept import cost
from sept.config import Model, Pretrain
from sept.data.loading import StepSampler, loader, steps_per_epoch
from sept.data.subset import Subset
from sept.data.views import CroppedSubset
from sept.fit import fit
from sept.learners.moby import MoBy
from sept.machine import Machine
from sept.models.weights import save_backbone
from sept.stages.weights import BACKBONE
from sept.store import Artefact


def build(folder: Path, inputs: Mapping[str, Artefact], spec: Mapping[str, Any], *, machine: Machine) -> dict[str, Any]:
    recipe = Pretrain(**{**spec["recipe"], "model": Model(**spec["recipe"]["model"])})
    subset = Subset.open(inputs["subset"].path)
    per_epoch = steps_per_epoch(len(subset), recipe.batch_size)
    learner = MoBy(recipe, seed=spec["seed"], epochs=spec["epochs"], steps_per_epoch=per_epoch)
    dataset = CroppedSubset(subset, learner.views)

    def batches(first: int) -> Any:
        sampler = StepSampler(
            seed=spec["seed"], samples=len(subset), batch_size=recipe.batch_size, first=first, last=learner.steps
        )
        return loader(dataset, sampler, machine.workers)

    fit(learner, batches, folder, machine, what="pre-train", loggers=machine.loggers(folder.name, spec))
    facts = {
        "images": len(subset),
        "images_seen": learner.steps * recipe.batch_size,
        "steps": learner.steps,
        "flops": cost.moby_flops(recipe, learner.steps),
    }
    card = {"recipe": "MoBy", "selection": inputs["subset"].manifest["inputs"]["selection"]["key"], **facts}
    save_backbone(learner.encoder, folder / BACKBONE, recipe.model.name, recipe.model.args, card)
    return facts
