"""Batched regularisers of fine-tuning: Mixup or CutMix with soft targets, and random erasing.

As timm's, which draw from numpy's and python's global generators; here the draws come from the generator passed in and
are the same on every device. B batch, C classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sept.data.transforms import BOX_TRIES, BOX_UNIFORMS, Box, candidate_boxes, first_fitting
from sept.runtime.device import send

_WHOLE_BATCH_KEPT = 1.0
_NOTHING: Box = (0, 0, 0, 0)


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed with itself in reverse: a pasted box, or without one the own image by `share`."""

    share: float
    box: Box | None


def draw_cutmix_box(rng: np.random.Generator, height: int, width: int, share: float) -> Box:
    """The pasted box: (1 - share) of the image's area, centred anywhere, cut at the border."""
    box_height, box_width = int(height * (1 - share) ** 0.5), int(width * (1 - share) ** 0.5)
    row, column = int(rng.integers(height)), int(rng.integers(width))
    top, left = max(row - box_height // 2, 0), max(column - box_width // 2, 0)
    bottom, right = min(row + (box_height + 1) // 2, height), min(column + (box_width + 1) // 2, width)
    return top, left, bottom - top, right - left


def draw_mix(
    rng: np.random.Generator,
    height: int,
    width: int,
    mixup_alpha: float,
    cutmix_alpha: float,
    prob: float,
    switch_prob: float,
) -> Mix:
    """One draw for a whole batch: mixed at all with `prob`, by CutMix rather than Mixup with `switch_prob`.

    An alpha of 0 turns its kind off. After CutMix the share is that of the pixels really kept.
    """
    if (mixup_alpha == 0 and cutmix_alpha == 0) or rng.random() >= prob:
        return Mix(_WHOLE_BATCH_KEPT, None)
    cut = mixup_alpha == 0 or (cutmix_alpha > 0 and rng.random() < switch_prob)
    alpha = cutmix_alpha if cut else mixup_alpha
    share = float(rng.beta(alpha, alpha))
    if not cut:
        return Mix(share, None)
    box = draw_cutmix_box(rng, height, width, share)
    return Mix(1 - box[2] * box[3] / (height * width), box)


def mix_images(images: Tensor, mix: Mix) -> Tensor:
    """Float (B, 3, H, W) mixed with the reversed batch, as a new tensor; the middle one of an odd batch stays."""
    if mix.box is None:
        return images.lerp(images.flip(0), 1 - mix.share)
    top, left, height, width = mix.box
    span = (..., slice(top, top + height), slice(left, left + width))
    mixed = images.clone()
    mixed[span] = images[span].flip(0)
    return mixed


def soft_targets(labels: Tensor, num_classes: int, smoothing: float, mix: Mix) -> Tensor:
    """(B, C) float32 targets that sum to 1: smoothed one-hot labels (B,), mixed as the images are."""
    classes = torch.arange(num_classes, device=labels.device)
    smooth = (labels[:, None] == classes).float() * (1 - smoothing) + smoothing / num_classes
    return smooth.lerp(smooth.flip(0), 1 - mix.share)


def draw_erasing_boxes(
    rng: np.random.Generator,
    batch_size: int,
    height: int,
    width: int,
    prob: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> np.ndarray:
    """(B, 4) int64 boxes smaller than the image, empty where nothing is erased (timm RandomErasing, count 1).

    area is a share of the image's, aspect is height/width; ten tries.
    """
    chosen = rng.random(batch_size) < prob
    uniforms = rng.random((batch_size, BOX_TRIES, BOX_UNIFORMS))
    candidates = candidate_boxes(uniforms, height, width, area, (1 / aspect[1], 1 / aspect[0]))
    boxes = first_fitting(candidates, height - 1, width - 1, _NOTHING)
    return np.where(chosen[:, None], boxes, 0)


def erase(
    images: Tensor, rng: np.random.Generator, prob: float, area: tuple[float, float], aspect: tuple[float, float]
) -> Tensor:
    """Normalised float (B, 3, H, W) with boxes of per-pixel normal noise (timm's mode pixel), as a new tensor."""
    height, width = images.shape[2:]
    boxes = draw_erasing_boxes(rng, len(images), height, width, prob, area, aspect)
    places, noise = [], []
    for i, (top, left, rows, columns) in enumerate(boxes.tolist()):
        if rows:
            line = (3 * i + np.arange(3)[:, None, None]) * height + np.arange(top, top + rows)[:, None]
            places.append((line * width + np.arange(left, left + columns)).reshape(-1))
            noise.append(rng.standard_normal((3, rows, columns), dtype=np.float32).reshape(-1))
    if not places:
        return images.clone()
    where, what = send([torch.from_numpy(np.concatenate(each)) for each in (places, noise)], images.device)
    return images.flatten().index_copy(0, where, what.to(images.dtype)).view_as(images)
