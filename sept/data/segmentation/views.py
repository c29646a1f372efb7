"""What a segmenter learns from and is tested on: random crops of an image and its mask, and whole images.

Training views as mmseg's recipe for Swin has them, without its photometric distortion. Masks are uint8, of every pixel
its class from 0, or IGNORE.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from sept.data.images import Pixels
from sept.data.loading import Place
from sept.data.rng import numpy_rng
from sept.data.segmentation.masks import IGNORE, Masked, read_masked

FLIPPED = 0.5  # share of the training views
TRIES, MOST_OF_ONE_CLASS = 10, 0.75  # crops of more of one class are drawn again, so often (mmseg's cat_max_ratio)
GROUND = torch.tensor([round(255 * level) for level in IMAGENET_DEFAULT_MEAN], dtype=torch.uint8)[:, None, None]

Sample = dict[str, Tensor]


def fitted(height: int, width: int, short: float, long: float) -> tuple[int, int]:
    """Height and width of an image whose shorter side becomes `short`, or less where the longer would pass `long`."""
    factor = min(short / min(height, width), long / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


@dataclass(frozen=True)
class Crop:
    """A random crop of `side` x `side` pixels, of an image fitted to (side, long_side) times a draw from `scale`."""

    side: int
    long_side: int
    scale: tuple[float, float]

    def __call__(self, pixels: Pixels, mask: Pixels, rng: np.random.Generator) -> Sample:
        """images uint8 (3, side, side) and masks uint8 (side, side) of (H, W, 3) and (H, W). Below and right of an
        image that is smaller there is the mean colour, to be ignored."""
        factor = rng.uniform(*self.scale)
        height, width = mask.shape
        size = fitted(height, width, factor * self.side, factor * self.long_side)
        image = interpolate(_tensor(pixels).permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)[0]
        labels = interpolate(_tensor(mask)[None, None], size, mode="nearest-exact")[0, 0]
        rows, columns = self._place(labels, rng)
        crop, crop_mask = image[:, rows, columns], labels[rows, columns]
        if rng.random() < FLIPPED:
            crop, crop_mask = crop.flip(2), crop_mask.flip(1)
        return {"images": self._filled(crop, GROUND), "masks": self._filled(crop_mask, torch.tensor(IGNORE))}

    def _place(self, labels: Tensor, rng: np.random.Generator) -> tuple[slice, slice]:
        for _ in range(TRIES):
            top, left = (int(rng.integers(max(0, length - self.side) + 1)) for length in labels.shape)
            place = slice(top, top + self.side), slice(left, left + self.side)
            counts = torch.bincount(labels[place].reshape(-1), minlength=IGNORE + 1)[:IGNORE]
            if counts.max() < MOST_OF_ONE_CLASS * counts.sum():
                break
        return place

    def _filled(self, crop: Tensor, ground: Tensor) -> Tensor:
        canvas = ground.to(torch.uint8).expand(*crop.shape[:-2], self.side, self.side).clone()
        canvas[..., : crop.shape[-2], : crop.shape[-1]] = crop
        return canvas


class CroppedImages(Dataset):
    """Training views, indexed by (epoch, sample): a function of (seed, epoch, sample)."""

    def __init__(self, images: Sequence[Masked], classes: int, crop: Crop, seed: int) -> None:
        self.images, self.classes, self.crop, self.seed = images, classes, crop, seed

    def __getitem__(self, place: Place) -> Sample:
        epoch, sample = place
        pixels, mask = read_masked(self.images[sample], self.classes)
        return self.crop(pixels, mask, numpy_rng(self.seed, "crop", epoch, sample))


class WholeImages(Dataset):
    """Gives images uint8 (3, H, W) and masks uint8 (H, W), as they are."""

    def __init__(self, images: Sequence[Masked], classes: int) -> None:
        self.images, self.classes = images, classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Sample:
        pixels, mask = read_masked(self.images[place], self.classes)
        return {"images": _tensor(pixels).permute(2, 0, 1).contiguous(), "masks": _tensor(mask)}


def as_lists(samples: list[Sample]) -> dict[str, list[Tensor]]:
    """A batch of images of several sizes: `images` and `masks` are lists."""
    return {name: [sample[name] for sample in samples] for name in ("images", "masks")}


def _tensor(values: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
