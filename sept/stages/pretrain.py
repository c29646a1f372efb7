"""A backbone trained by a self-supervised method on selected images: the target's, or a retriever's."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sept.backbones import Backbone
from sept.backbones.saved import BACKBONE, WEIGHTS
from sept.data.locate import Location
from sept.data.settings import Shot
from sept.errors import ConfigError
from sept.methods.recipe import Recipe
from sept.retrievers.settings import Retriever
from sept.runtime.hardware import Loggers, Runtime
from sept.stages import VERSIONS
from sept.stages.task import few_shots, locate
from sept.store.step import Artefact, Step

if TYPE_CHECKING:
    from sept.config import Experiment

WHAT = {"pretrain": "pre-train", "retriever": "train the retriever"}  # for messages, by stage


@dataclass(frozen=True)
class PretrainSpec:
    """recipe: as settled, with its method's name. compiled: by torch.compile, which rounds differently."""

    recipe: Recipe
    backbone: Backbone
    epochs: int
    seed: int
    precision: str
    compiled: bool


@dataclass(frozen=True)
class Probing:
    """k-NN tests during training, on the few shots of the task, every so many epochs."""

    every: int
    location: Location
    shot: Shot
    seed: int


def target(
    e: "Experiment",
    selection: Step,
    subset: Step,
    runtime: Runtime,
    loggers: Loggers,
    *,
    start: Step | None,
    task: Step,
    copies: Step | None,
) -> Step:
    """The target's backbone. start: the weights of a continued training. copies: made along with it, for people to
    read."""
    recipe, every = e.pretrain, e.logger.knn_every
    if e.budget.images < recipe.batch_size:
        raise ConfigError(
            f"budget.images={e.budget.images} is less than one batch: pretrain.batch_size={recipe.batch_size}"
        )
    of_epoch = recipe.flops(e.backbone) * recipe.batch_size * (e.budget.images // recipe.batch_size)
    return step(
        *("pretrain", recipe, e.backbone, subset),
        epochs=e.compute.passes(of_epoch),
        seed=e.seed,
        slug="-".join([selection.slug, *([start.slug] if start else []), f"seed{e.seed}"]),
        runtime=runtime,
        loggers=loggers,
        start=start,
        aids={name: aid for name, aid in (("task", task if every else None), ("copies", copies)) if aid is not None},
        probing=Probing(every, locate(e.task), e.shot, e.seed) if every else None,
    )


def retriever(r: Retriever, subset: Step, runtime: Runtime, loggers: Loggers, start: Step | None) -> Step:
    """The encoder that is trained on the curated part of the pool."""
    what = ("retriever", r.train, r.backbone, subset)
    return step(*what, epochs=r.epochs, seed=r.seed, slug=r.name, runtime=runtime, loggers=loggers, start=start)


def step(
    stage: str,
    recipe: Recipe,
    backbone: Backbone,
    subset: Step,
    *,
    epochs: int,
    seed: int,
    slug: str,
    runtime: Runtime,
    loggers: Loggers,
    start: Step | None = None,
    aids: Mapping[str, Step] | None = None,
    probing: Probing | None = None,
) -> Step:
    """stage: `pretrain`, or `retriever` for an encoder. start: as in `target`. aids: the task that `probing` tests
    on."""
    images = int(subset.estimate["images"])
    spec = PretrainSpec(recipe.settled(), backbone, epochs, seed, runtime.precision, runtime.compile)
    return Step(
        stage,
        VERSIONS[stage],
        spec,
        ({"start": start} if start else {}) | {"subset": subset},  # errors in the file are reported first
        partial(build, stage=stage, spec=spec, runtime=runtime, loggers=loggers, probing=probing),
        slug=slug,
        estimate={
            "images": images * epochs,
            "flops": recipe.flops(backbone) * epochs * max(recipe.batch_size, images - images % recipe.batch_size),
        },
        aids=aids or {},
    )


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    *,
    stage: str,
    spec: PretrainSpec,
    runtime: Runtime,
    loggers: Loggers,
    probing: Probing | None = None,
) -> dict[str, Any]:
    from sept.data.subset import Subset
    from sept.methods.training import SelfSupervisedTraining, train_backbone
    from sept.store.step import plain

    subset = Subset.open(inputs["subset"].path)
    watchers = list if probing is None else partial(_probes, inputs["task"], probing, spec.recipe, len(subset))
    start = inputs.get("start")
    training = SelfSupervisedTraining(
        spec.recipe,
        spec.backbone,
        subset,
        spec.seed,
        spec.epochs,
        plain(spec, stage),
        folder,
        WHAT[stage],
        loggers,
        watchers,
        start.path / BACKBONE / WEIGHTS if start else None,
    )
    return train_backbone(training, runtime, inputs["subset"], start)


def _probes(task: Artefact, probing: Probing, recipe: Recipe, images: int) -> list[Any]:
    from sept.data import steps_per_epoch
    from sept.data.labelled import Tests, in_order
    from sept.data.loading import loader
    from sept.training.callbacks import KNNProbe

    shots = few_shots(task, probing.location, probing.shot, probing.seed)
    tests = loader(Tests(shots, recipe.side), in_order(len(shots)), 0)
    return [KNNProbe(tests, probing.every * steps_per_epoch(images, recipe.batch_size))]
