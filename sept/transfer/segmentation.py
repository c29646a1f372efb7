"""Fine-tuning the segmenter on the sampled images, and mean IoU on the task's test set."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sept.data import steps_per_epoch
from sept.data.labelled import batches_of
from sept.data.loading import Batches, loader
from sept.data.rng import fold
from sept.data.segmentation.masks import IGNORE, Masked, SegmentationTask, check_masks
from sept.data.segmentation.views import Crop, CroppedImages, WholeImages, as_lists
from sept.training.callbacks import EvaluateEvery
from sept.transfer.segment import Segmenter
from sept.transfer.training import FinetuneJob, Predictions

SEGMENTER = "segmenter.safetensors"
LEAST_SIDE = 300  # pixels of a picture's shorter side
OPACITY = 0.6  # of a class's colour over the image
BITS = 8  # of a colour of VOC's palette
UInt8Array = NDArray[np.uint8]


def segment(job: FinetuneJob, task: SegmentationTask, train: Sequence[Masked]) -> dict[str, Any]:
    """Trains on the sampled images, tests on all test images; saves SEGMENTER and pictures, and returns the facts."""
    recipe, runtime, classes = job.recipe, job.runtime, len(task.classes)
    check_masks([*train, *task.test], classes, runtime.threads)
    per_epoch = steps_per_epoch(len(train), recipe.batch_size)
    seed = fold(job.seed, "segment", recipe.seed)
    learner = Segmenter(recipe, job.backbone, classes, job.start, seed=seed, steps_per_epoch=per_epoch)
    images = WholeImages(task.test, classes)
    pin = runtime.accelerator != "cpu"
    tests = loader(images, batches_of(len(images), recipe.batch_size), runtime.workers, as_lists, pin)
    crop = Crop(recipe.side, recipe.long_side, (recipe.scale[0], recipe.scale[1]))
    predictions = Predictions(learner, images, partial(_drawn, learner))

    batches = Batches(CroppedImages(train, classes, crop, seed), len(train), recipe.batch_size, seed)
    watchers = [EvaluateEvery(tests, recipe.test_every * per_epoch), predictions.watcher]
    seen = job.train(learner, batches, watchers, SEGMENTER)
    predictions.save(job.folder)
    view = torch.zeros(1, 3, recipe.side, recipe.side, device=learner.device)
    return {
        "metric": "miou",
        "score": learner.miou.item(),
        "miou": learner.miou.item(),
        "pixel_accuracy": learner.pixel_accuracy.item(),
        "class_iou": dict(zip(task.classes, learner.class_iou.tolist(), strict=True)),
        "images": len(train),
        "tests": len(task.test),
        "images_seen": seen,
        "flops": seen * learner.model.flops(view),
    }


def _drawn(learner: Segmenter, sample: Mapping[str, Any]) -> UInt8Array:
    """uint8 (H, 2 W, 3): a test image with the ground truth on the left, the prediction on the right."""
    found = learner.predict(sample["images"].to(learner.device)).cpu()
    pixels = sample["images"].permute(1, 2, 0).numpy()
    zoom = max(1, -(-LEAST_SIDE // min(pixels.shape[:2])))
    pair = np.concatenate([painted(pixels, mask.numpy()) for mask in (sample["masks"], found)], axis=1)
    return pair.repeat(zoom, axis=0).repeat(zoom, axis=1)


def painted(pixels: UInt8Array, mask: NDArray) -> UInt8Array:
    """An image (H, W, 3) overlaid with the colours of its mask (H, W). Class 0, usually the background, and ignored
    pixels are left as they are."""
    colours = palette()[mask]
    mixed = np.rint((1 - OPACITY) * pixels + OPACITY * colours).astype(np.uint8)
    plain = (mask == 0) | (mask == IGNORE)
    return np.where(plain[..., None], pixels, mixed)


def palette() -> UInt8Array:
    """(256, 3): VOC's colours of classes. Red, green and blue take turns at the bits of the class, lowest first, each
    filling from its highest bit down."""
    classes = np.arange(2**BITS)
    colours = np.zeros((2**BITS, 3), np.uint8)
    for bit in range(BITS):
        colours[:, bit % 3] |= ((classes >> bit & 1) << (BITS - 1 - bit // 3)).astype(np.uint8)
    return colours
