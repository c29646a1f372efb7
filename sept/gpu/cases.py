"""Every learner at micro size with generated training data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sept.data.detection.patterns_boxes import read_patterns_boxes
from sept.data.detection.targets import FlippedImages, as_lists
from sept.data.loading import Batches
from sept.data.patterns.boxed import draw_boxed_task
from sept.data.segmentation.patterns_masks import read_patterns_masks, write_masks
from sept.data.segmentation.views import Crop, CroppedImages
from sept.data.subset import Subset
from sept.gpu import micro
from sept.gpu.card import Card
from sept.methods.recipe import Length
from sept.runtime.named import load
from sept.training.learner import Learner
from sept.transfer.classify import Classifier
from sept.transfer.detect import Detector
from sept.transfer.detection_metrics import COUNTER, DetectionMetrics
from sept.transfer.segment import Segmenter

STEPS, BATCH, IMAGES, RATE, DROP_PATH = 20, 8, 24, 1e-4, 0.3
TRANSFER_BATCH, CLASSES, SCENE_CLASSES = 4, 4, 16
DOMAIN, SEED = "glyphs", 3


@dataclass(frozen=True)
class Case:
    """A learner of STEPS steps and its data. Its learning rate is at most RATE.

    tolerance: largest relative difference of a loss due to rounding. A rounding error of the weights at every step
    changes a loss by 2e-6 at most (on a CPU); in the detector near-equal boxes may also swap ranks.
    """

    make: Callable[[], Learner]
    batches: Callable[[Learner], Batches]
    tolerance: float = 1e-4


def moby(folder: Path) -> Case:
    recipe = micro.moby(batch_size=BATCH, queue=20, drop_path_rate=DROP_PATH, lr=RATE, lr_batch=BATCH)
    make = partial(load(recipe.learner), recipe, micro.SWIN, seed=SEED, length=Length(STEPS, 1))
    return Case(make, partial(micro.cropped, packed=packed(folder), batch_size=BATCH))


def ibot(folder: Path) -> Case:
    changes = {"drop_path_rate": DROP_PATH, "lr": RATE, "freeze_prototypes_epochs": 2}
    recipe = micro.ibot(batch_size=BATCH, **changes)
    make = partial(load(recipe.learner), recipe, micro.VIT, seed=SEED, length=Length(STEPS, 1))
    return Case(make, partial(micro.cropped, packed=packed(folder), batch_size=BATCH))


def classifier(folder: Path) -> Case:
    recipe = micro.finetune(epochs=STEPS, lr=RATE, erasing=0.5)
    make = partial(Classifier, recipe, micro.SWIN, CLASSES, None, seed=SEED, steps_per_epoch=1)
    return Case(make, partial(micro.labelled, count=BATCH, classes=CLASSES, batch_size=BATCH))


def detector(folder: Path) -> Case:
    task = read_patterns_boxes(scenes(folder))
    recipe = micro.detect(epochs=STEPS // 4, lr=RATE)
    make = partial(Detector, recipe, micro.SWIN, len(task.classes), None, seed=SEED, steps_per_epoch=4)
    batches = Batches(FlippedImages(task.train, SEED), len(task.train), TRANSFER_BATCH, SEED, as_lists)
    return Case(partial(untested, make), lambda learner: batches, tolerance=1e-3)


def segmenter(folder: Path) -> Case:
    task = read_patterns_masks(scenes(folder))
    recipe = micro.segment(epochs=STEPS // 4, lr=RATE)
    make = partial(Segmenter, recipe, micro.SWIN, len(task.classes), None, seed=SEED, steps_per_epoch=4)
    crop = Crop(recipe.side, recipe.long_side, (recipe.scale[0], recipe.scale[1]))
    images = CroppedImages(task.train, len(task.classes), crop, SEED)
    return Case(make, lambda learner: Batches(images, len(task.train), TRANSFER_BATCH, SEED))


CASES = {"MoBy": moby, "iBOT": ibot, "Classifier": classifier, "Detector": detector, "Segmenter": segmenter}


def case(name: str, card: Card) -> Case:
    """Made once."""
    if name not in card.kept:
        card.kept[name] = CASES[name](card.folder)
    made: Case = card.kept[name]
    return made


def packed(folder: Path) -> Subset:
    """The data of self-supervised learners."""
    return micro.subset(folder / "packed", IMAGES)


def scenes(folder: Path) -> Path:
    """SCENE_CLASSES generated training images and as many test images, with boxes and masks."""
    drawn = folder / "scenes"
    if not drawn.exists():
        draw_boxed_task(drawn, DOMAIN, 1, 1, micro.SCENE, 0, 1)
        write_masks(drawn)
    return drawn


def untested(make: Callable[[], Any]) -> Any:
    """A detector that is trained but not tested, which needs no evaluation package."""
    with without_counter():
        return make()


@contextmanager
def without_counter() -> Iterator[None]:
    """Context manager: detectors can be made even if the evaluation package is not installed."""
    if find_spec(COUNTER) is not None:
        yield
        return
    with patch("sept.transfer.detect.DetectionMetrics", _Uncounted):
        yield


class _Uncounted(DetectionMetrics):
    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.reset()
