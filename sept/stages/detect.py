"""Fine-tuning the detector on the drawn images, and average precision on the task's test set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from sept import cost
from sept.config import Detect, Model
from sept.data.detection.targets import DetectionImages, FlippedImages, as_lists
from sept.data.labelled import in_order
from sept.data.loading import Batches, loader, steps_per_epoch
from sept.data.rng import fold
from sept.fit import fit
from sept.learners.detection_metrics import headline
from sept.learners.detector import Detector
from sept.machine import Machine
from sept.stages.task import drawn_images, open_boxed
from sept.stages.weights import BACKBONE
from sept.store import Artefact
from sept.watch import Accuracy, Pictures

DETECTOR, PREDICTIONS = "detector.safetensors", "predictions"
SHOWN, LEAST_SCORE = 8, 0.5  # test images, spread evenly; detections that are drawn
LEAST_SIDE = 400  # pixels of a picture's shorter side, so that labels can be read
FOUND, THERE = (220, 60, 30), (40, 160, 60)  # colours of boxes


def build(
    folder: Path, inputs: Mapping[str, Artefact], spec: Mapping[str, Any], *, machine: Machine, place: Mapping[str, Any]
) -> dict[str, Any]:
    recipe, model = Detect(**spec["recipe"]), Model(**spec["model"])
    task = open_boxed(inputs["task"], place)
    train = drawn_images(inputs["task"], place, spec["images"], spec["shot_seed"])
    per_epoch = steps_per_epoch(len(train), recipe.batch_size)
    backbone = inputs["backbone"].path / BACKBONE / "model.safetensors" if "backbone" in inputs else None
    seed = fold(spec["shot_seed"], "detect", recipe.seed)
    learner = Detector(recipe, model, len(task.classes), backbone, seed=seed, steps_per_epoch=per_epoch)
    images = DetectionImages(task.test, training=False)
    tests = loader(images, in_order(len(images), recipe.batch_size), machine.workers, as_lists)
    show = partial(_pictures, learner, images, task.classes)

    fit(
        learner,
        Batches(FlippedImages(train, seed), len(train), recipe.batch_size, seed, as_lists),
        folder,
        replace(machine, devices=1),  # as for classifiers
        what="fine-tune",
        loggers=partial(machine.loggers, folder.name, spec),
        watchers=[Accuracy(tests, recipe.test_every * per_epoch), Pictures(PREDICTIONS, show)],
    )
    save_file({name: value.contiguous() for name, value in learner.model.state_dict().items()}, folder / DETECTOR)
    (folder / PREDICTIONS).mkdir(exist_ok=True)
    for name, picture in show().items():
        Image.fromarray(picture).save(folder / PREDICTIONS / f"{name}.png")
    seen, image = learner.steps * min(recipe.batch_size, len(train)), images[0][0].to(learner.device)
    return {
        **_precisions(learner, task.classes, headline(inputs["task"].manifest["spec"]["kind"])),
        "images": len(train),
        "boxes": sum(len(image.boxes) for image in train),
        "tests": len(task.test),
        "images_seen": seen,
        "flops": seen * (1 + cost.BACKWARD) * cost.counted_flops(learner.model, [image / 255]),
    }


def _precisions(learner: Detector, classes: Sequence[str], metric: str) -> dict[str, Any]:
    named: dict[str, Tensor] = dict(learner.named_buffers(recurse=False))
    scalars = {name: value.item() for name, value in named.items() if value.ndim == 0}
    by_class = {
        name: dict(zip(classes, value.tolist(), strict=True)) for name, value in named.items() if value.ndim == 1
    }
    return {"metric": metric, "score": scalars[metric], **scalars, **by_class}


def _pictures(learner: Detector, images: DetectionImages, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """uint8 (H, W, 3) by name: test images with what was found, named and scored, over what is there."""
    training = learner.training
    learner.eval()
    places = np.linspace(0, len(images) - 1, min(SHOWN, len(images))).astype(int).tolist()
    pictures = {}
    for place in places:
        pixels, target = images[place]
        [found] = learner.predict([pixels.to(learner.device)])
        pictures[f"{place:05d}"] = _drawn(pixels, target, {name: value.cpu() for name, value in found.items()}, classes)
    learner.train(training)
    return pictures


def _drawn(pixels: Tensor, target: dict[str, Any], found: dict[str, Tensor], classes: Sequence[str]) -> np.ndarray:
    zoom = max(1, -(-LEAST_SIDE // min(pixels.shape[1:])))
    large = pixels.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    if len(target["boxes"]):
        large = draw_bounding_boxes(large, zoom * target["boxes"], colors=THERE, width=2)
    sure = found["scores"] >= LEAST_SCORE
    if sure.any():
        pairs = zip(found["labels"][sure].tolist(), found["scores"][sure].tolist(), strict=True)
        names = [f"{classes[label - 1]} {score:.2f}" for label, score in pairs]
        large = draw_bounding_boxes(large, zoom * found["boxes"][sure], names, colors=FOUND, width=2)
    return large.permute(1, 2, 0).numpy()
