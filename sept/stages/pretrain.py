"""MoBy on the selected images; leaves a backbone that timm loads in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sept import cost
from sept.config import Model, Pretrain
from sept.data.loading import steps_per_epoch
from sept.data.subset import Subset
from sept.learners.moby import MoBy
from sept.machine import Machine
from sept.models.weights import save_backbone
from sept.stages.selfsupervised import fit_views
from sept.stages.weights import BACKBONE
from sept.store import Artefact


def build(folder: Path, inputs: Mapping[str, Artefact], spec: Mapping[str, Any], *, machine: Machine) -> dict[str, Any]:
    recipe = Pretrain(**{**spec["recipe"], "model": Model(**spec["recipe"]["model"])})
    subset = Subset.open(inputs["subset"].path)
    per_epoch = steps_per_epoch(len(subset), recipe.batch_size)
    learner = MoBy(recipe, seed=spec["seed"], epochs=spec["epochs"], steps_per_epoch=per_epoch)
    fit_views(learner, subset, recipe.batch_size, spec, folder, machine, "pre-train")
    facts = {
        "images": len(subset),
        "images_seen": learner.steps * recipe.batch_size,
        "steps": learner.steps,
        "flops": cost.moby_flops(recipe, learner.steps),
    }
    card = {"recipe": "MoBy", "selection": inputs["subset"].manifest["inputs"]["selection"]["key"], **facts}
    save_backbone(learner.encoder, folder / BACKBONE, recipe.model.name, recipe.model.args, card)
    return facts
