"""The retrieval encoder: read from a file, or trained with iBOT on the curated part of the pool."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sept import cost
from sept.backbones.networks import sized_args
from sept.backbones.weights import save_backbone
from sept.config import IBotRecipe, Model
from sept.data.loading import steps_per_epoch
from sept.data.subset import Subset
from sept.methods.ibot.learner import IBot
from sept.runtime.hardware import Runtime
from sept.stages import weights
from sept.stages.selfsupervised import ViewTraining, card
from sept.store import Artefact


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    *,
    file: Path | None = None,
    option: str = "",
    runtime: Runtime | None = None,
) -> dict[str, Any]:
    if file is not None:
        return weights.build(folder, inputs, spec, file=file, option=option)
    assert runtime is not None
    recipe, model = IBotRecipe(**spec["recipe"]), Model(**spec["model"])
    subset = Subset.open(inputs["subset"].path)
    per_epoch = steps_per_epoch(len(subset), recipe.batch_size)
    make = partial(IBot, recipe, model, seed=spec["seed"], steps_per_epoch=per_epoch)
    learner = ViewTraining(make, subset, recipe.batch_size, spec, folder, "train the retriever").run(runtime)
    seen = learner.steps * min(recipe.batch_size, len(subset))
    facts = {
        "images_seen": seen,
        "steps": learner.steps,
        "flops": cost.ibot_flops(recipe, model, 1) / recipe.batch_size * seen,
        **learner.health(),
    }
    args = sized_args(model.name, model.args, recipe.side)
    save_backbone(
        learner.encoder, folder / weights.BACKBONE, model.name, args, card("iBOT", spec, inputs["subset"], facts)
    )
    return facts
