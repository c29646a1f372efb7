"""A classifier, detector or segmenter trained on the task's labelled images, or a frozen backbone, with its scores."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sept.backbones import Backbone
from sept.backbones.saved import BACKBONE, WEIGHTS
from sept.data.annotated import draw_images
from sept.data.locate import Location
from sept.data.settings import DETECTION_TASKS, SEGMENTATION_TASKS, Shot
from sept.data.settings import Task as TaskSettings
from sept.errors import ConfigError, DataError
from sept.runtime.hardware import Loggers, Runtime
from sept.stages import VERSIONS
from sept.stages import task as task_stage
from sept.store.step import Artefact, Step
from sept.transfer.recipes import RECIPES, Classify, Detect, Probe, Transfer

if TYPE_CHECKING:
    from sept.config import Experiment

FULL_SIDE = 128  # pixels from which networks are for photographs, which are always shrunk
FOR_PHOTOGRAPHS = "backbone=resnet50 init=foundation init.weights=hub finetune=classify"
SHRUNK = 1.25  # times the side that is shown: less is not worth a line
STAGES = {"classify": "finetune", "detect": "detect", "segment": "segment"}  # by kind of recipe


@dataclass(frozen=True)
class FinetuneSpec:
    """images: number drawn from a task with boxes or masks; null for one with classes, which uses `shot`."""

    recipe: Transfer
    backbone: Backbone
    shot: Shot | None
    images: int | None
    shot_seed: int
    precision: str


def kind_of(t: TaskSettings) -> str:
    """The kind of fine-tuning for a task: classify, detect or segment."""
    return "detect" if t.kind in DETECTION_TASKS else "segment" if t.kind in SEGMENTATION_TASKS else "classify"


def step(e: "Experiment", task: Step, weights: Step | None, runtime: Runtime, loggers: Loggers) -> Step:
    """weights: None for random ones."""
    t, recipe = e.task, _fitting(e.task, e.finetune)
    classes = int(task.estimate["classes"])
    absent = isinstance(task.spec, task_stage.TaskSpec) and task.spec.listing is None  # reported by the plan
    if kind_of(t) == "classify" and classes < 2 and not absent:
        raise DataError(
            f"task={t.name}: {t.path} has one class; a classifier needs two (search.py takes one, and so do tasks with "
            "boxes)"
        )
    labelled = t.images or task_stage.shots(t, e.shot, e.query, e.seed, task)
    unnamed = replace(recipe, name="")  # the option's name is not part of the key
    shot = e.shot if t.images is None else None
    spec = FinetuneSpec(unnamed, e.backbone, shot, t.images, e.seed, runtime.precision)
    stage, images = STAGES[kind_of(t)], labelled * recipe.settled(max(1, labelled)).passes  # none: absent
    return Step(
        stage,
        VERSIONS[stage],
        spec,
        {"task": task} | ({"backbone": weights} if weights else {}),
        partial(build, spec=spec, location=task_stage.locate(t), runtime=runtime, loggers=loggers),
        slug=f"{t.name}-{e.initial}-seed{e.seed}.{recipe.seed}",
        estimate={"images": images, "flops": images * recipe.flops(e.backbone, classes)},
        about="" if absent else _shrinking(e, recipe),
    )


def _shrinking(e: "Experiment", recipe: Transfer) -> str:
    """For the plan: that a small setting shows the network less than an own task's images hold."""
    side = getattr(recipe, "side", None)
    if side is None or side >= FULL_SIDE:
        return ""
    held = task_stage.usual_side(e.task)
    if held is None or held < SHRUNK * side:
        return ""
    line = f"images of {e.task.name} are {held:,} px (median shorter side) and are shown at finetune.side={side}: "
    if held >= FULL_SIDE:
        return f"{line}photographs need a network made for them, such as {FOR_PHOTOGRAPHS}"
    recipes = "finetune.side={0} pretrain.side={0} pretrain.store_side={0}" if e.pretrains else "finetune.side={0}"
    return line + f"{recipes.format(held)} shows all of them"


def _fitting(t: TaskSettings, recipe: Transfer) -> Transfer:
    """The recipe as it enters the key. Raises ConfigError if it does not fit the task's kind."""
    kind = kind_of(t)
    if recipe.fits != kind:
        fitting = " or ".join(name for name, each in RECIPES.items() if each.fits == kind)
        raise ConfigError(f"finetune={recipe.name} does not fit task={t.name}: finetune={fitting} does")
    return replace(recipe, seed=0) if isinstance(recipe, Probe) else recipe  # the result does not depend on the seed


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    *,
    spec: FinetuneSpec,
    location: Location,
    runtime: Runtime,
    loggers: Loggers,
) -> dict[str, Any]:
    from sept.store.step import plain
    from sept.transfer.training import FinetuneJob

    start = inputs["backbone"].path / BACKBONE / WEIGHTS if "backbone" in inputs else None
    job = FinetuneJob(
        spec.recipe, spec.backbone, start, spec.shot_seed, plain(spec, "finetune"), folder, runtime, loggers
    )
    task = inputs["task"]
    if isinstance(spec.recipe, (Classify, Probe)):
        from sept.transfer.classify import classify
        from sept.transfer.probe import probe

        assert spec.shot is not None
        shots = task_stage.few_shots(task, location, spec.shot, spec.shot_seed)
        test = classify if isinstance(spec.recipe, Classify) else probe
        return test(job, task_stage.open_task(task, location), shots)
    assert spec.images is not None
    if isinstance(spec.recipe, Detect):
        from sept.transfer.detection import detect
        from sept.transfer.detection_metrics import headline

        boxed = task_stage.open_boxed(task, location)
        return detect(job, boxed, draw_images(boxed.train, spec.images, spec.shot_seed), headline(location.kind))
    from sept.transfer.segmentation import segment

    masked = task_stage.open_masked(task, location)
    return segment(job, masked, draw_images(masked.train, spec.images, spec.shot_seed))
