"""Two MoBy views of decoded images, images per second on one core: ours in batches against torchvision on PIL.

    OMP_NUM_THREADS=1 python -m benchmarks.augment

Both ways crop, resize, flip, recolour, blur, solarise and normalise; the best of several interleaved rounds counts.
"""

import random
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms as tv

from sept.data.augment import (
    Policy,
    crop_resize_batch,
    draw_parameters,
    photometric,
    random_boxes,
    scaled_blur_radius,
)
from sept.data.rng import fold, generator, numpy_rng
from sept.data.transforms import crop_resize, random_resized_crop_box

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
JITTER = (0.4, 0.4, 0.2, 0.1)
VIEWS = [(1.0, 0.0), (0.1, 0.2)]  # probabilities of blur and solarise, MoBy views 1 and 2
ROUNDS = 5


def policies(side: int) -> list[Policy]:
    radius = scaled_blur_radius(0.1, 2.0, side)
    return [Policy(0.5, 0.8, *JITTER, 0.2, blur, radius, solarise) for blur, solarise in VIEWS]


def batched_crops(images: np.ndarray, side: int) -> list[Tensor]:
    """Ours from a stack of small images, cropped in batches; the views of images (B, H, W, 3)."""
    stack = torch.from_numpy(images).permute(0, 3, 1, 2)
    views = []
    for view, policy in enumerate(policies(side)):
        height, width = images.shape[1:3]
        boxes = random_boxes(generator(0, "crop", view), len(images), height, width, SCALE, RATIO)
        crops = crop_resize_batch(stack, boxes, side, "bilinear")
        views.append(photometric(crops, draw_parameters(generator(0, "colour", view), len(images), policy)))
    return views


def worker_crops(images: np.ndarray, side: int) -> list[Tensor]:
    """Ours with images cropped one by one, as loader workers do."""
    views = []
    for view, policy in enumerate(policies(side)):
        crops = []
        for i, image in enumerate(images):
            rng = numpy_rng(0, view, i)
            box = random_resized_crop_box(rng, image.shape[0], image.shape[1], SCALE, RATIO)
            crops.append(crop_resize(image, box, side, "bilinear"))
        draws = draw_parameters(generator(0, "colour", view), len(images), policy)
        views.append(photometric(torch.stack(crops), draws))
    return views


def pil_pipeline(side: int, policy: Policy) -> tv.Compose:
    """The published view: torchvision's transforms on PIL images."""

    def blur(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*policy.blur_radius)))

    return tv.Compose(
        [
            tv.RandomResizedCrop(side, SCALE, RATIO),
            tv.RandomHorizontalFlip(policy.flip),
            tv.RandomApply([tv.ColorJitter(*JITTER)], policy.jitter),
            tv.RandomGrayscale(policy.grayscale),
            tv.RandomApply([tv.Lambda(blur)], policy.blur),
            tv.RandomSolarize(128, policy.solarise),
            tv.ToTensor(),
            tv.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


def torchvision_on_pil(images: np.ndarray, side: int) -> list[Tensor]:
    pipelines = [pil_pipeline(side, policy) for policy in policies(side)]
    return [torch.stack([pipeline(Image.fromarray(image)) for image in images]) for pipeline in pipelines]


def seconds(way: Callable[[np.ndarray, int], list[Tensor]], images: np.ndarray, side: int) -> float:
    start = time.perf_counter()
    way(images, side)
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    ways = [torchvision_on_pil, worker_crops, batched_crops]
    for count, height, width, side in [(256, 40, 40, 32), (32, 256, 341, 224)]:
        noise = numpy_rng(fold(0, side)).integers(0, 256, (count, height // 4, width // 4, 3), dtype=np.uint8)
        images = np.stack(
            [np.array(Image.fromarray(n).resize((width, height), Image.Resampling.BICUBIC)) for n in noise]
        )
        rounds = [[seconds(way, images, side) for way in ways] for _ in range(ROUNDS)]
        best = [count / min(times) for times in zip(*rounds, strict=True)]
        for way, rate in zip(ways, best, strict=True):
            print(f"{height}x{width} to {side}: {way.__name__:20} {rate:7.0f} images/s, {rate / best[0]:4.1f} x")


if __name__ == "__main__":
    main()
