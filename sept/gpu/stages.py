"""The three kinds of fine-tuning as whole stages, from random weights, on generated data."""

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import load_file

from sept.data.locate import Location
from sept.data.patterns.drawing import draw_task
from sept.data.settings import Shot
from sept.gpu import micro
from sept.gpu.card import Card
from sept.gpu.cases import DOMAIN, scenes
from sept.gpu.report import Result, Skip
from sept.gpu.runner import Check
from sept.runtime.hardware import no_loggers
from sept.stages import finetune
from sept.stages.task import IMAGES
from sept.store import Artefact
from sept.transfer.classify import CLASSIFIER
from sept.transfer.detection import DETECTOR
from sept.transfer.detection_metrics import COUNTER
from sept.transfer.recipes import Finetune
from sept.transfer.segmentation import SEGMENTER

EPOCHS, IMAGES_USED = 2, 16
SHORT = {"epochs": EPOCHS, "batch_size": 8, "test_every": EPOCHS}
SHOT = Shot(per_class=1)


def classify(card: Card) -> Result:
    folder = card.folder / "boards"
    if not folder.exists():
        draw_task(folder / IMAGES, DOMAIN, 1, 1, micro.SIDE, 0, 1)
    return whole(card, "classify", "patterns", folder, micro.finetune(**SHORT), CLASSIFIER)


def detected(card: Card) -> Result:
    if find_spec(COUNTER) is None:
        raise Skip(f"needs {COUNTER} for its tests: pip install 'sept[detect]'")
    return whole(card, "detect", "patterns_boxes", drawn(card), micro.detect(**SHORT), DETECTOR)


def segmented(card: Card) -> Result:
    return whole(card, "segment", "patterns_masks", drawn(card), micro.segment(**SHORT), SEGMENTER)


def drawn(card: Card) -> Path:
    """A task artefact's folder."""
    folder = card.folder / "task"
    if not folder.exists():
        folder.mkdir()
        (folder / IMAGES).symlink_to(scenes(card.folder))
    return folder


def whole(card: Card, name: str, kind: str, task: Path, recipe: Finetune, left: str) -> Result:
    """The stage ends with a score and with finite weights."""
    shot, images = (SHOT, None) if name == "classify" else (None, IMAGES_USED)
    precision = card.runtime(card.fast).precision
    spec = finetune.FinetuneSpec(recipe, micro.SWIN, shot, images, 0, precision)
    inputs = {"task": Artefact("key", "task", task, {"spec": {"kind": kind}})}
    run = partial(finetune.build, inputs=inputs, spec=spec, location=Location(kind), loggers=no_loggers)
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
