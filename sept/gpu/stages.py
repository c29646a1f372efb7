"""The three fine-tunings as whole stages, from fresh weights, on data drawn on the spot."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from sept.data.patterns import draw_task
from sept.gpu import micro
from sept.gpu.card import Card
from sept.gpu.cases import DOMAIN, scenes
from sept.gpu.report import Result, Skip
from sept.gpu.runner import Check
from sept.stages import detect, finetune, segment
from sept.stages.task import IMAGES
from sept.store import Artefact
from sept.transfer.detection_metrics import COUNTER

EPOCHS, IMAGES_USED = 2, 16
SHORT = {"epochs": EPOCHS, "batch_size": 8, "test_every": EPOCHS}
SHOT = {"per_class": 1, "share": None}
Build = Callable[..., dict[str, Any]]


def classify(card: Card) -> Result:
    folder = card.folder / "boards"
    if not folder.exists():
        draw_task(folder / IMAGES, DOMAIN, 1, 1, micro.SIDE, 0, 1)
    spec = {"recipe": asdict(micro.finetune(**SHORT)), "shot": SHOT}
    return whole(card, "classify", finetune.build, "patterns", folder, spec, finetune.CLASSIFIER)


def detected(card: Card) -> Result:
    if find_spec(COUNTER) is None:
        raise Skip(f"needs {COUNTER} for its tests: pip install 'sept[detect]'")
    recipe = micro.detect(**SHORT)
    spec = {"recipe": asdict(recipe), "images": IMAGES_USED}
    return whole(card, "detect", detect.build, "patterns_boxes", drawn(card), spec, detect.DETECTOR)


def segmented(card: Card) -> Result:
    spec = {"recipe": asdict(micro.segment(**SHORT)), "images": IMAGES_USED}
    return whole(card, "segment", segment.build, "patterns_masks", drawn(card), spec, segment.SEGMENTER)


def drawn(card: Card) -> Path:
    """A task artefact's folder."""
    folder = card.folder / "task"
    if not folder.exists():
        folder.mkdir()
        (folder / IMAGES).symlink_to(scenes(card.folder))
    return folder


def whole(card: Card, name: str, build: Build, kind: str, task: Path, spec: dict[str, Any], left: str) -> Result:
    """The stage ends with a score and with finite weights."""
    given = spec | {"model": asdict(micro.SWIN), "shot_seed": 0}
    inputs = {"task": Artefact("key", "task", task, {"spec": {"kind": kind}})}
    place = {"kind": kind, "path": None, "options": ()}
    run = partial(build, inputs=inputs, spec=given, place=place)
    folder = card.folder / name
    folder.mkdir()
    with card.on():
        facts = run(folder, runtime=card.runtime(card.fast))
    weights = load_file(folder / left)
    finite = all(bool(value.isfinite().all()) for value in weights.values() if value.is_floating_point())
    good = finite and 0 <= facts["score"] <= 100
    score = f"{facts['metric']} {facts['score']:.1f} %"
    text = f"{facts['images_seen']} images, {card.fast}, tested and saved"
    return Result(f"stage {name}", good, score if finite else "weights not finite", "a score, finite weights", text)


CHECKS: Mapping[str, Check] = {"stage classify": classify, "stage detect": detected, "stage segment": segmented}
