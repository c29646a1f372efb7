"""Annotated images as torchvision's detectors and torchmetrics' mean average precision take them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sept.data.detection.boxes import Boxed
from sept.data.loading import Place
from sept.data.rng import numpy_rng
from sept.data.sources.reader import read_labelled

FLIPPED = 0.5  # share of the training images (MoBY's transfer, and every recipe before it)

Annotated = tuple[Tensor, dict[str, Any]]


def to_target(image: Boxed) -> dict[str, Any]:
    """boxes float32 (n, 4), left, top, right, bottom; labels int64 (n,) from 1, as 0 is torchvision's background;
    iscrowd int64 (n,), 1 for boxes to be ignored; image_id, the image's id."""
    return {
        "boxes": torch.from_numpy(image.boxes.copy()),
        "labels": torch.from_numpy(image.labels + 1),
        "iscrowd": torch.from_numpy(image.ignore.astype("int64")),
        "image_id": image.id,
    }


def without_ignored(image: Boxed) -> Boxed:
    """The boxes a detector learns from: torchvision's take every box they are given for a real one."""
    kept = ~image.ignore
    return image._replace(boxes=image.boxes[kept], labels=image.labels[kept], ignore=image.ignore[kept])


class DetectionImages(Dataset):
    """Gives (uint8 (3, H, W), target), for training without the boxes to be ignored."""

    def __init__(self, images: Sequence[Boxed], training: bool) -> None:
        self.images = [without_ignored(image) for image in images] if training else list(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Annotated:
        image = self.images[place]
        return torch.from_numpy(read_labelled(image.path)).permute(2, 0, 1).contiguous(), to_target(image)


class FlippedImages(Dataset):
    """Training images as `DetectionImages` has them, indexed by (epoch, sample): every other one mirrored, which
    is drawn from (seed, epoch, sample)."""

    def __init__(self, images: Sequence[Boxed], seed: int) -> None:
        self.images, self.seed = DetectionImages(images, training=True), seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: Place) -> Annotated:
        epoch, sample = place
        drawn = numpy_rng(self.seed, "flip", epoch, sample).random() < FLIPPED
        return mirrored(*self.images[sample]) if drawn else self.images[sample]


def mirrored(pixels: Tensor, target: dict[str, Any]) -> Annotated:
    """Left and right exchanged, in the image (3, H, W) and in its boxes."""
    left, top, right, bottom = target["boxes"].unbind(dim=1)
    width = pixels.shape[2]
    return pixels.flip(2), {**target, "boxes": torch.stack([width - right, top, width - left, bottom], dim=1)}


def as_lists(samples: list[Annotated]) -> dict[str, list[Any]]:
    """A batch of images of several sizes: `images` and `targets` are lists."""
    return {"images": [pixels for pixels, _ in samples], "targets": [target for _, target in samples]}
