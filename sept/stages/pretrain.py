"""A backbone trained by a method of pre-training on selected images: the target's, or a retriever's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sept.backbones import Backbone
from sept.backbones.saved import BACKBONE, WEIGHTS
from sept.data import steps_per_epoch
from sept.data.locate import Location
from sept.data.settings import Shot
from sept.errors import ConfigError, DataError
from sept.methods.recipe import Length, Recipe
from sept.retrievers.settings import Retriever
from sept.runtime.hardware import Loggers, Runtime
from sept.stages import VERSIONS
from sept.stages.task import few_shots, locate
from sept.store.step import Artefact, Step

if TYPE_CHECKING:
    from sept.config import Compute, Experiment
    from sept.data.subset import Subset

PACKED = ("subset", "task_images")  # inputs; the second if the task's images join others
CHARGED = {  # stages by what `compute.include` calls them
    "retriever": ("retriever",),
    "embedding": ("features", "index"),
    "selection": ("queries", "selection"),
}
WHAT = {"pretrain": "pre-train", "retriever": "train the retriever"}  # for messages, by stage


@dataclass(frozen=True)
class PretrainSpec:
    """recipe: as settled, with its method's name. epochs or steps: how long, the other being None. warmup: share of the
    steps, in place of the recipe's epochs. compiled: by torch.compile, which rounds differently."""

    recipe: Recipe
    backbone: Backbone
    epochs: int | None
    steps: int | None
    warmup: float | None
    seed: int
    precision: str
    compiled: bool

    def length(self, images: int) -> Length:
        """That of a training on so many images."""
        if self.epochs is not None:
            whole = Length.of_epochs(self.epochs, images, self.recipe.batch_size)
            return replace(whole, warmup_share=self.warmup)
        assert self.steps is not None, "one of the two"
        return Length(self.steps, steps_per_epoch(images, self.recipe.batch_size), self.warmup)


@dataclass(frozen=True)
class Probing:
    """k-NN tests during training, on the few shots of the task, every so many epochs."""

    every: int
    location: Location
    shot: Shot
    seed: int


def target(
    e: "Experiment",
    subset: Step | None,
    own: Step | None,
    runtime: Runtime,
    loggers: Loggers,
    *,
    start: Step | None,
    task: Step,
    copies: Step | None,
) -> Step:
    """The target's backbone. subset: the packed selection. own: the task's packed images, beside it or instead of it.
    start: the weights of a continued training. copies: made along with it, for people to read."""
    recipe, every = e.pretrain, e.logger.knn_every
    packed = [each for each in (subset, own) if each is not None]
    images = e.budget.images if e.selects else int(packed[0].estimate["images"])
    require_batch(e.selects, images, recipe)
    charged = 0.0 if subset is None else _charged(e.compute, subset)
    sized = recipe if images is None else recipe.fitted(images, 1)  # what a queue costs follows from the images
    steps = e.compute.steps(recipe.batch_size, sized.flops(e.backbone), charged)
    return step(
        *("pretrain", recipe, e.backbone, packed),
        epochs=e.compute.epochs,
        steps=steps,
        warmup=e.compute.warmup,
        seed=e.seed,
        slug="-".join(each.slug for each in (*packed, start) if each) + f"-seed{e.seed}",
        about="" if e.selects or images is None else _about(e, images, steps),
        runtime=runtime,
        loggers=loggers,
        start=start,
        aids={name: aid for name, aid in (("task", task if every else None), ("copies", copies)) if aid is not None},
        probing=Probing(every, locate(e.task), e.shot, e.seed) if every else None,
    )


def require_batch(selects: bool, images: int | None, recipe: Recipe) -> None:
    """ConfigError for fewer images than a batch has. selects: whether they are as many as the budget."""
    if images is not None and images < recipe.batch_size:
        what = f"budget.images={images} is" if selects else f"the task's {images} training images are"
        raise ConfigError(f"{what} less than one batch: pretrain.batch_size={recipe.batch_size}")


def _charged(compute: "Compute", subset: Step) -> float:
    """FLOPs of what led to the packed selection, as far as the budget has to pay for it. Raises ConfigError for what is
    not known before the work."""
    charged = 0.0
    for charge in compute.include:
        for made in subset.walk():
            if made.stage not in CHARGED[charge]:
                continue
            if made.stage == "retriever" and not made.estimate:
                raise ConfigError(
                    f"compute.include has {charge}: the training of {made.slug}, which is read from a file, took an "
                    "unknown number of FLOPs; leave it out"
                )
            if made.estimate.get("flops") == 0:
                raise ConfigError(
                    f"compute.include has {charge}: how many images {made.slug} is of is known only when the pool has "
                    "been listed; leave it out, and lower compute.flops by what it takes"
                )
            charged += made.estimate.get("flops", 0.0) * compute.part(charge)
    return charged


def _about(e: "Experiment", images: int, steps: int | None) -> str:
    """Of the task's images alone: how many, and how they are given as many steps as a budget; for the plan."""
    batch, budget, epochs = e.pretrain.batch_size, e.budget.images, e.compute.epochs or 0
    told = f"{e.selector.name}: {images:,} images, all training images of {e.task.name} without labels"
    told += f", {steps or epochs * (images // batch):,} steps"
    if steps or budget is None or budget <= images:
        return told
    wanted = epochs * (budget // batch)
    return (
        f"{told}; budget.images={budget:,} would be {wanted:,}: for as many with any selector, compute.epochs=null "
        f"compute.images={wanted * batch}"
    )


def retriever(r: Retriever, subset: Step, runtime: Runtime, loggers: Loggers, start: Step | None) -> Step:
    """The encoder that is trained on the curated part of the pool."""
    what = ("retriever", r.train, r.backbone, [subset])
    return step(*what, epochs=r.epochs, seed=r.seed, slug=r.name, runtime=runtime, loggers=loggers, start=start)


def step(
    stage: str,
    recipe: Recipe,
    backbone: Backbone,
    packed: Sequence[Step],
    *,
    epochs: int | None,
    steps: int | None = None,
    warmup: float | None = None,
    seed: int,
    slug: str,
    runtime: Runtime,
    loggers: Loggers,
    start: Step | None = None,
    aids: Mapping[str, Step] | None = None,
    probing: Probing | None = None,
    about: str = "",
) -> Step:
    """stage: `pretrain`, or `retriever` for an encoder. packed: the images, of one place or two. epochs, steps, warmup:
    as in the spec. start: as in `target`. aids: the task that `probing` tests on."""
    images = sum(int(each.estimate["images"]) for each in packed)
    how = (runtime.precision, runtime.compile)
    spec = PretrainSpec(recipe.settled(), backbone, epochs, steps, warmup, seed, *how)
    return Step(
        stage,
        VERSIONS[stage],
        spec,
        ({"start": start} if start else {}) | dict(zip(PACKED, packed, strict=False)),  # errors in the file come first
        partial(build, stage=stage, spec=spec, runtime=runtime, loggers=loggers, probing=probing),
        slug=slug,
        estimate=_estimate(spec, images) if all(each.estimate["images"] for each in packed) else {},
        aids=aids or {},
        about=about,
    )


def _estimate(spec: PretrainSpec, images: int) -> dict[str, float]:
    steps, batch = spec.length(max(images, spec.recipe.batch_size)).steps, spec.recipe.batch_size
    each = spec.recipe.fitted(images, steps).flops(spec.backbone)
    return {"images": steps * batch, "flops": each * steps * batch}


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
    from sept.data.subset import Joined, Subset
    from sept.methods.training import Pretraining, train_backbone
    from sept.store.step import plain

    parts = [Subset.open(inputs[name].path) for name in PACKED if name in inputs]
    subset = Joined(parts) if len(parts) > 1 else parts[0]
    if stage == "pretrain":  # how many images are left is not always known before
        require_batch("selection" in inputs["subset"].manifest["inputs"], len(subset), spec.recipe)
    length = spec.length(len(subset))
    recipe = _of_annotations(spec.recipe.fitted(len(subset), length.steps), parts[0])
    watchers = list if probing is None else partial(_probes, inputs["task"], probing, recipe, len(subset))
    start = inputs.get("start")
    training = Pretraining(
        recipe,
        spec.backbone,
        subset,
        spec.seed,
        length,
        plain(spec, stage),
        folder,
        WHAT[stage],
        loggers,
        watchers,
        start.path / BACKBONE / WEIGHTS if start else None,
    )
    return train_backbone(training, runtime, inputs["subset"], start)


def _of_annotations(recipe: Recipe, subset: "Subset") -> Recipe:
    """Raises DataError where the images were packed without what the recipe reads."""
    from sept.data.annotations import Labels, Vectors
    from sept.data.subset import AGAIN

    if recipe.reads is None:
        return recipe
    if subset.annotations is None:
        raise DataError(f"the packed images have lost their {recipe.reads}; {AGAIN}")
    found = subset.annotations
    if isinstance(found, Vectors):
        return recipe.of_width(found.width)
    return recipe.of_classes(len(found.classes)) if isinstance(found, Labels) else recipe


def _probes(task: Artefact, probing: Probing, recipe: Recipe, images: int) -> list[Any]:
    from sept.data.labelled import Tests, batches_of
    from sept.data.loading import loader
    from sept.training.callbacks import KNNProbe

    shots = few_shots(task, probing.location, probing.shot, probing.seed)
    tests = loader(Tests(shots, recipe.side), batches_of(len(shots)), 0)
    return [KNNProbe(tests, probing.every * steps_per_epoch(images, recipe.batch_size))]
