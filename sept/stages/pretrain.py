"""MoBy on the selected images; leaves a backbone that timm loads in one line."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sept import cost
from sept.backbones.networks import sized_args
from sept.backbones.weights import save_backbone
from sept.config import Model, Pretrain
from sept.data.labelled import Tests, in_order
from sept.data.loading import loader, steps_per_epoch
from sept.data.subset import Subset
from sept.methods.moby.learner import MoBy
from sept.runtime.hardware import Runtime
from sept.stages.selfsupervised import ViewTraining, card
from sept.stages.task import few_shots
from sept.stages.weights import BACKBONE
from sept.store import Artefact
from sept.training.callbacks import KNNProbe


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    *,
    runtime: Runtime,
    knn: Mapping[str, Any],
) -> dict[str, Any]:
    recipe = Pretrain(**{**spec["recipe"], "model": Model(**spec["recipe"]["model"])})
    subset = Subset.open(inputs["subset"].path)
    per_epoch = steps_per_epoch(len(subset), recipe.batch_size)
    make = partial(MoBy, recipe, seed=spec["seed"], epochs=spec["epochs"], steps_per_epoch=per_epoch)
    watchers = partial(_neighbours, inputs["task"], knn, recipe.side, per_epoch) if "task" in inputs else list
    learner = ViewTraining(make, subset, recipe.batch_size, spec, folder, "pre-train", watchers).run(runtime)
    facts = {
        "images": len(subset),
        "images_seen": learner.steps * recipe.batch_size,
        "steps": learner.steps,
        "flops": cost.moby_flops(recipe, learner.steps),
        **learner.health(),
    }
    args = sized_args(recipe.model.name, recipe.model.args, recipe.side)
    save_backbone(
        learner.encoder, folder / BACKBONE, recipe.model.name, args, card("MoBy", spec, inputs["subset"], facts)
    )
    return facts


def _neighbours(task: Artefact, knn: Mapping[str, Any], side: int, per_epoch: int) -> list[KNNProbe]:
    """The k-NN test on the few shots of the task."""
    shots = few_shots(task, knn["place"], knn["shot"], knn["seed"])
    return [KNNProbe(loader(Tests(shots, side), in_order(len(shots)), 0), knn["every"] * per_epoch)]
