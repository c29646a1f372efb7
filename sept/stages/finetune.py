"""A classifier, detector or segmenter, trained on the task's labelled images, or a frozen backbone; its scores."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

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

STAGES = {"classify": "finetune", "detect": "detect", "segment": "segment"}  # by kind of recipe


@dataclass(frozen=True)
class FinetuneSpec:
    """images: how many are drawn of a task with boxes or masks; null of one with classes, whose `shot` counts."""

    recipe: Transfer
    backbone: Backbone
    shot: Shot | None
    images: int | None
    shot_seed: int
    precision: str


def kind_of(t: TaskSettings) -> str:
    """What a task wants: classify, detect or segment."""
    return "detect" if t.kind in DETECTION_TASKS else "segment" if t.kind in SEGMENTATION_TASKS else "classify"


def step(
    t: TaskSettings,
    task: Step,
    shot: Shot,
    shots: int,
    seed: int,
    recipe: Transfer,
    backbone: Backbone,
    weights: Step | None,
    runtime: Runtime,
    loggers: Loggers,
    slug: str,
) -> Step:
    """shots: how many labelled images there are of a task with classes. weights: None for fresh ones."""
    kind = kind_of(t)
    if recipe.fits != kind:
        fitting = " or ".join(name for name, each in RECIPES.items() if each.fits == kind)
        raise ConfigError(f"finetune={recipe.name} does not fit task={t.name}: finetune={fitting} does")
    if isinstance(recipe, Probe):
        recipe = replace(recipe, seed=0)  # one result, whatever a sweep gives it
    classes, images = int(task.estimate["classes"]), (t.images or shots) * recipe.passes
    if kind == "classify" and classes < 2:
        raise DataError(
            f"task={t.name}: {t.path} has one class; a classifier needs two (search.py takes one, and so do tasks with "
            "boxes)"
        )
    of_classes = t.images is None
    unnamed = replace(recipe, name="")  # the option that holds these settings is none of them
    spec = FinetuneSpec(unnamed, backbone, shot if of_classes else None, t.images, seed, runtime.precision)
    stage = STAGES[kind]
    return Step(
        stage,
        VERSIONS[stage],
        spec,
        {"task": task} | ({"backbone": weights} if weights else {}),
        partial(build, spec=spec, location=task_stage.locate(t), runtime=runtime, loggers=loggers),
        slug=f"{slug}-seed{seed}.{recipe.seed}",
        estimate={"images": images, "flops": images * recipe.flops(backbone, classes)},
    )


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
        from sept.transfer.classification import classify
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
