"""Fine-tuning the detector on the sampled images, and average precision on the task's test set."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from sept.backbones.flops import BACKWARD, counted_flops
from sept.data import steps_per_epoch
from sept.data.detection.boxes import Boxed, DetectionTask
from sept.data.detection.targets import Annotated, DetectionImages, FlippedImages, as_lists
from sept.data.labelled import batches_of
from sept.data.loading import Batches, loader
from sept.data.rng import fold
from sept.training.callbacks import EvaluateEvery
from sept.transfer.detect import Detector
from sept.transfer.training import FinetuneJob, Predictions

DETECTOR = "detector.safetensors"
LEAST_SCORE = 0.5  # of detections that are shown
LEAST_SIDE = 400  # pixels of a picture's shorter side, so that labels are legible
FOUND, THERE = (220, 60, 30), (40, 160, 60)  # colours of boxes


def detect(job: FinetuneJob, task: DetectionTask, train: Sequence[Boxed], metric: str) -> dict[str, Any]:
    """Trains on the sampled images, tests on all test images; saves DETECTOR and pictures, and returns the facts."""
    recipe, runtime = job.recipe, job.runtime
    per_epoch = steps_per_epoch(len(train), recipe.batch_size)
    seed = fold(job.seed, "detect", recipe.seed)
    learner = Detector(recipe, job.backbone, len(task.classes), job.start, seed=seed, steps_per_epoch=per_epoch)
    images = DetectionImages(task.test, training=False)
    pin = runtime.accelerator != "cpu"
    tests = loader(images, batches_of(len(images), recipe.batch_size), runtime.workers, as_lists, pin)
    predictions = Predictions(learner, images, partial(_drawn, learner, task.classes))

    batches = Batches(FlippedImages(train, seed), len(train), recipe.batch_size, seed, as_lists)
    watchers = [EvaluateEvery(tests, recipe.test_every * per_epoch), predictions.watcher]
    seen = job.train(learner, batches, watchers, DETECTOR)
    predictions.save(job.folder)
    image = images[0][0].to(learner.device)
    return {
        **_precisions(learner, task.classes, metric),
        "images": len(train),
        "boxes": sum(len(image.boxes) for image in train),
        "tests": len(task.test),
        "images_seen": seen,
        "flops": seen * (1 + BACKWARD) * counted_flops(learner.model, [image / 255]),
    }


def _precisions(learner: Detector, classes: Sequence[str], metric: str) -> dict[str, Any]:
    named: dict[str, Tensor] = dict(learner.named_buffers(recurse=False))
    scalars = {name: value.item() for name, value in named.items() if value.ndim == 0}
    by_class = {
        name: dict(zip(classes, value.tolist(), strict=True)) for name, value in named.items() if value.ndim == 1
    }
    return {"metric": metric, "score": scalars[metric], **scalars, **by_class}


def _drawn(learner: Detector, classes: Sequence[str], sample: Annotated) -> np.ndarray:
    """uint8 (H, W, 3): a test image with the detections, labelled and scored, over the ground truth."""
    pixels, target = sample
    [found] = learner.predict([pixels.to(learner.device)])
    zoom = max(1, -(-LEAST_SIDE // min(pixels.shape[1:])))
    large = pixels.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    if len(target["boxes"]):
        large = draw_bounding_boxes(large, zoom * target["boxes"], colors=THERE, width=2)
    boxes, labels, scores = (found[name].cpu() for name in ("boxes", "labels", "scores"))
    sure = scores >= LEAST_SCORE
    if sure.any():
        pairs = zip(labels[sure].tolist(), scores[sure].tolist(), strict=True)
        names = [f"{classes[label - 1]} {score:.2f}" for label, score in pairs]
        large = draw_bounding_boxes(large, zoom * boxes[sure], names, colors=FOUND, width=2)
    return large.permute(1, 2, 0).numpy()
