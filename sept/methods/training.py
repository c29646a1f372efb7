"""A complete pre-training: a learner fitted to views of a locally stored selection."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from sept.backbones import Backbone
from sept.backbones.networks import sized_args, statistics
from sept.backbones.saved import BACKBONE
from sept.backbones.weights import save_backbone
from sept.data.loading import Batches
from sept.data.subset import Joined, Subset
from sept.data.transforms import normalise
from sept.methods.learner import PretrainingLearner
from sept.methods.recipe import Length, Recipe
from sept.methods.views import CroppedSubset, Views
from sept.runtime.hardware import Loggers, Runtime
from sept.runtime.named import load
from sept.store.step import CHECKPOINTS, Artefact
from sept.training.callbacks import LogImagesAtStart
from sept.training.loop import Checkpoint, train

COLLAPSED_RANK = 2.0
INDIFFERENT = (
    0.98  # of chance: the views told nothing. Less says nothing of a task (docs/advice.md): see `sept.results`
)
VIEWS = "views"
SHOWN, SIDE = 4, 96  # images whose views are logged, spread evenly; pixels of each picture
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretraining:
    """Trains a backbone by a recipe on views of a subset, on one device or several. Picklable.

    spec: what identifies the training, for loggers. what: for messages, `pre-train`. start: a file of weights for the
    backbone, for a continued training.
    """

    recipe: Recipe
    backbone: Backbone
    subset: Subset | Joined
    seed: int
    length: Length
    spec: Mapping[str, Any]
    folder: Path
    what: str
    loggers: Loggers
    watchers: Callable[[], Sequence] = list
    start: Path | None = None

    def make(self) -> PretrainingLearner:
        """The learner before its first step."""
        made: PretrainingLearner = load(self.recipe.learner)(
            self.recipe, self.backbone, seed=self.seed, length=self.length
        )
        made.statistics = made.views.statistics = statistics(self.backbone)
        if self.start is not None:
            made.start_from(self.start)
        return made

    def run(self, runtime: Runtime) -> PretrainingLearner:
        """The learner after its last step; warns if it learned nothing."""
        if runtime.devices == 1:
            learner = self.fit(runtime)
        else:
            from sept.training import distributed

            distributed.run(self.fit, runtime)
            learner, state = self.make(), Checkpoint(self.folder / CHECKPOINTS).load()
            assert state is not None, "the first process leaves the last state"
            learner.load_state_dict(state["learner"])
        _warn(self.what, learner.health())
        return learner

    def fit(self, runtime: Runtime) -> PretrainingLearner:
        """The part of one process."""
        learner = self.make()
        dataset = CroppedSubset(self.subset, learner.views)
        batches = Batches(dataset, len(self.subset), self.recipe.batch_size, self.seed)
        train(
            learner,
            batches,
            self.folder,
            runtime,
            what=self.what,
            loggers=partial(self.loggers, self.folder.name, self.spec),
            watchers=[LogImagesAtStart(VIEWS, partial(pictured, self.subset, learner.views)), *self.watchers()],
        )
        return learner


def train_backbone(training: Pretraining, runtime: Runtime, subset: Artefact, start: Artefact | None) -> dict[str, Any]:
    """Runs the training, saves the backbone below its folder, and returns its facts. start: the initial weights."""
    recipe, backbone = training.recipe, training.backbone
    learner = training.run(runtime)
    seen = learner.steps * min(recipe.batch_size, len(training.subset))
    facts = {
        "images": len(training.subset),
        "images_seen": seen,
        "steps": learner.steps,
        "flops": recipe.flops(backbone) * seen,
        **learner.health(),
    }
    if start is not None:
        facts |= {"start": start.facts["source"], "start_sha256": start.facts["sha256"]}
    args = sized_args(backbone.name, backbone.args, recipe.side)
    described = card(recipe.title, training.spec, subset, facts)
    save_backbone(learner.encoder, training.folder / BACKBONE, backbone.name, args, described, statistics(backbone))
    return facts


def pictured(subset: Subset | Joined, views: Views) -> dict[str, np.ndarray]:
    """uint8 (SIDE, n SIDE, 3): some images, each next to its views of the first epoch, augmented as in the first
    step."""
    places = np.linspace(0, len(subset) - 1, min(SHOWN, len(subset))).astype(int).tolist()
    images = [subset.image(place) for place in places]
    crops = [views.crop(image, 0, place) for image, place in zip(images, places, strict=True)]
    coloured = views.colour([torch.stack(view) for view in zip(*crops, strict=True)], 0)
    black, white = normalise(torch.stack([torch.zeros(3, 1, 1), torch.ones(3, 1, 1)]), views.statistics)
    shown = [
        (view - black).div(white - black).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1) for view in coloured
    ]
    rows = [[image, *(view[i].numpy() for view in shown)] for i, image in enumerate(images)]
    return {
        f"image {place:,}": np.concatenate(
            [np.asarray(ImageOps.pad(Image.fromarray(each), (SIDE, SIDE))) for each in row], 1
        )
        for place, row in zip(places, rows, strict=True)
    }


def card(method: str, spec: Mapping[str, Any], subset: Artefact, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The backbone's model card: how it was trained, and on what."""
    origin = subset.manifest["inputs"]
    return {
        "method": method,
        "recipe": dict(spec),
        **{name: origin[name]["key"] for name in ("selection", "task") if name in origin},
        "pool": [each["key"] for name, each in sorted(origin.items()) if name.startswith("pool")],
        **facts,
    }


def _warn(what: str, health: Mapping[str, float]) -> None:
    rank, chance = health["effective_rank"], health["loss_over_chance"]
    if rank < COLLAPSED_RANK:
        log.warning("%s: the features have collapsed (effective rank %.2f); lower the learning rate", what, rank)
    elif chance > INDIFFERENT:
        log.warning("%s: not even its own loss fell (%.2f of chance level); train longer", what, chance)
