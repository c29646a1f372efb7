"""Per-image views on CPU workers: crops and resizes; colour is left to `sept.data.augment`, in batches on the device.

Images come in as uint8 (H, W, 3) arrays and leave as contiguous uint8 (3, side, side) tensors.
A box is (top, left, height, width) in pixels.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import Compose

from sept.data.rng import seeded

Interpolation = Literal["bilinear", "bicubic"]
Box = tuple[int, int, int, int]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel

IMAGENET: Statistics = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
BOX_TRIES = 10  # torchvision RandomResizedCrop and timm RandomErasing
BOX_UNIFORMS = 4  # area, aspect, top, left
_LONGEST_ASPECT = 64  # 1 x 20,000 pixels would otherwise be blown up to 4 GB
_EVAL_ENLARGEMENT = 256 / 224  # SimMIM: resize 256, crop 224


def candidate_boxes(
    uniforms: np.ndarray, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Boxes (..., 4) int64 from uniforms (..., 4) in [0, 1): area uniform in `scale` of the image's, width/height
    log-uniform in `ratio`, position uniform. They may be larger than the image: see `first_fitting`."""
    area = height * width * (scale[0] + uniforms[..., 0] * (scale[1] - scale[0]))
    aspect = np.exp(np.log(ratio[0]) + uniforms[..., 1] * np.log(ratio[1] / ratio[0]))
    box_height = np.rint(np.sqrt(area / aspect))
    box_width = np.rint(np.sqrt(area * aspect))
    top = np.floor(uniforms[..., 2] * (height - box_height + 1))
    left = np.floor(uniforms[..., 3] * (width - box_width + 1))
    return np.stack([top, left, box_height, box_width], axis=-1).astype(np.int64)


def first_fitting(candidates: np.ndarray, tallest: int, widest: int, fallback: Box) -> np.ndarray:
    """The first of each row's candidates (B, tries, 4) that is not empty and at most that large, (B, 4) int64."""
    box_height, box_width = candidates[..., 2], candidates[..., 3]
    fits = (box_height > 0) & (box_height <= tallest) & (box_width > 0) & (box_width <= widest)  # (B, tries)
    chosen = candidates[np.arange(len(candidates)), fits.argmax(axis=1)]
    return np.where(fits.any(axis=1, keepdims=True), chosen, np.asarray(fallback))


def central_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """The largest central box with width/height within `ratio` (torchvision RandomResizedCrop's fallback)."""
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def boxes_from_uniforms(
    uniforms: np.ndarray, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Random resized crop boxes (B, 4) int64 from uniforms (B, BOX_TRIES, BOX_UNIFORMS)."""
    candidates = candidate_boxes(uniforms, height, width, scale, ratio)
    return first_fitting(candidates, height, width, central_box(height, width, ratio))


def random_resized_crop_box(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """One box, distributed as torchvision's RandomResizedCrop draws it: ten tries, then the central fallback.

    As `boxes_from_uniforms`, but a loop over numbers: for one box some 30 times as fast as arrays.
    """
    for area, aspect, down, right in rng.random((BOX_TRIES, BOX_UNIFORMS)).tolist():
        pixels = height * width * (scale[0] + area * (scale[1] - scale[0]))
        elongation = math.exp(math.log(ratio[0]) + aspect * math.log(ratio[1] / ratio[0]))
        box_height, box_width = round(math.sqrt(pixels / elongation)), round(math.sqrt(pixels * elongation))
        if 0 < box_height <= height and 0 < box_width <= width:
            return int(down * (height - box_height + 1)), int(right * (width - box_width + 1)), box_height, box_width
    return central_box(height, width, ratio)


def _resize(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """uint8 (H, W, 3) resized with antialiasing to uint8 (3, *size), by torch's kernel for 8-bit pixels.

    Rows before columns, and the same bits with and without AVX: Pillow changed the order with version 13
    (python-pillow/Pillow#9549). Of Pillow's own result by that order about one value in 200 is one grey level off and
    fewer than one in 10,000 two; 3 to 5 times as fast.
    """
    if not image.flags.writeable:  # torch warns of arrays it might write to
        image = image.copy()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]  # a view: channels last has the fast kernel
    return interpolate(pixels, size, mode=interpolation, antialias=True)[0]


def crop_resize(image: np.ndarray, box: Box, side: int, interpolation: Interpolation) -> Tensor:
    """The box of a uint8 (H, W, 3) image, resized with antialiasing to uint8 (3, side, side)."""
    top, left, height, width = box
    return _resize(image[top : top + height, left : left + width], (side, side), interpolation).contiguous()


def _middle(length: int, kept: int) -> slice:
    """The central `kept` of `length` pixels, all of them when there are fewer; torchvision CenterCrop's rounding."""
    start = max(round((length - kept) / 2), 0)
    return slice(start, start + min(kept, length))


def embed_view(
    image: np.ndarray, resize_side: int, crop_side: int, squash: bool, interpolation: Interpolation = "bicubic"
) -> Tensor:
    """The view the encoder sees, uint8 (3, crop_side, crop_side), antialiased, from an image of any size.

    squash resizes to a literal square (SEPT, Implementation Details, "256 x 256"); otherwise the shorter side becomes
    resize_side (iBOT's evaluation), and images more than 64 times longer than wide lose their ends first. Then the
    centre is cropped.
    """
    assert 0 < crop_side <= resize_side, f"cannot crop {crop_side} pixels out of {resize_side}"
    if not squash:
        longest = _LONGEST_ASPECT * min(image.shape[:2])
        image = image[_middle(image.shape[0], longest), _middle(image.shape[1], longest)]
    shorter = min(image.shape[:2])
    height, width = (resize_side if squash else resize_side * length // shorter for length in image.shape[:2])
    resized = _resize(image, (height, width), interpolation)
    return resized[:, _middle(height, crop_side), _middle(width, crop_side)].contiguous()


def eval_view(image: np.ndarray, side: int) -> Tensor:
    """The view a fine-tuned model is tested on: shorter side to side * 256 / 224, bicubic, centre crop (SimMIM)."""
    return embed_view(image, round(side * _EVAL_ENLARGEMENT), side, squash=False)


def normalise(batch: Tensor, statistics: Statistics = IMAGENET) -> Tensor:
    """uint8, or float in [0, 1], (B, 3, H, W) to float32 with mean and deviation of the channels, on its device."""
    if batch.dtype == torch.uint8:
        # float32 at once: less memory moved than by `batch.float()` and a division
        return normalise_(batch.div(255), statistics)
    mean, std = _on_device(batch.device, statistics)
    return batch.float().sub(mean).div_(std)


def normalise_(images: Tensor, statistics: Statistics = IMAGENET) -> Tensor:
    """The same of float32 images (B, 3, H, W) in [0, 1], which it overwrites."""
    mean, std = _on_device(images.device, statistics)
    return images.sub_(mean).div_(std)


@cache
def _on_device(device: torch.device, statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Mean and deviation, (3, 1, 1) on the device. Kept: the copy to a device is waited for."""
    with torch.inference_mode(False):  # what it makes may not take part in training
        mean, std = (torch.tensor(each, device=device).view(3, 1, 1) for each in statistics)
    return mean, std


class FinetuneTransform:
    """Training view of fine-tuning (SimMIM): random resized crop, flip and RandAugment, as timm has them.

    Only the crop is resized by torch, in a third of Pillow's time. Mixup, random erasing and normalisation follow in
    batches. timm leaves color_jitter unused while RandAugment is on.
    """

    def __init__(
        self, side: int, scale: tuple[float, float], flip: float, auto_augment: str | None, color_jitter: float
    ) -> None:
        self._side = side
        crop, *rest = create_transform(
            side,
            is_training=True,
            scale=scale,
            interpolation="bicubic",
            hflip=flip,
            auto_augment=auto_augment,
            color_jitter=color_jitter,
            re_prob=0.0,
            normalize=False,
        ).transforms
        self._crop, self._rest = crop, Compose(rest)
        for augment in rest:
            for operation in getattr(augment, "ops", []):
                if operation.name.startswith("Posterize"):
                    operation.level_fn = partial(_at_least_one_bit, operation.level_fn)

    def __call__(self, image: np.ndarray, seed: int, *parts: int | str) -> Tensor:
        """uint8 (3, side, side) of a uint8 (H, W, 3) image: a function of (seed, *parts), say an epoch and a sample."""
        with seeded(seed, *parts):
            crop = crop_resize(image, self._box(*image.shape[:2]), self._side, "bicubic")
            return self._rest(Image.fromarray(np.ascontiguousarray(crop.permute(1, 2, 0).numpy())))

    def _box(self, height: int, width: int) -> Box:
        """timm's draw; an image of a pixel or two, of which it may draw an empty box, is taken whole."""
        canvas = torch.empty(3, height, width, device="meta")
        top, left, box_height, box_width = self._crop.get_params(canvas, self._crop.scale, self._crop.ratio)
        return (top, left, box_height, box_width) if box_height and box_width else (0, 0, height, width)


def _at_least_one_bit(level_fn: Callable[..., tuple[int]], *level: Any) -> tuple[int]:
    """timm asks Pillow to keep 0 bits at full magnitude: a black image once, an error since Pillow 13."""
    return (max(1, level_fn(*level)[0]),)
