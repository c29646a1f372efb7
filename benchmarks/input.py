"""Images per core-second that the input pipelines deliver: ours against torchvision's and timm's transforms on PIL.

    OMP_NUM_THREADS=1 python -m benchmarks.input [--rounds 7] [--images 48] [--workers 0 1 2]

One thread, by its processor time; ways of one kind take turns and the median of the rounds counts. The loader's lines
are wall-clock time, and want idle cores. What the device does in batches (normalisation; for MoBy, colour and blur) is
in the figures on PIL and not in ours, where a line does not say so. Images are random with the spectrum of photographs.
"""

import argparse
import io
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from timm.data import create_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch.utils.data import Dataset
from torchvision import transforms as tv

from sept.data.augment import Policy
from sept.data.images import Pixels, ample, decode
from sept.data.loading import collate, loader
from sept.data.rng import numpy_rng
from sept.data.subset import Subset, write_subset
from sept.data.transforms import FinetuneTransform, embed_view
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.views import CROP_RATIO, CroppedSubset, TwoViews
from sept.retrievers.encoder import EncodedViews
from sept.retrievers.settings import Preprocess

HEIGHT, WIDTH, QUALITY = 375, 500, 92  # some 105 KB, as ImageNet's
HUGE = (2880, 3840)
RESIZE, SIDE, LOCAL_SIDE = 256, 224, 256
SMALL, SMALL_SIDE = 40, 32  # the embedded world
FINETUNE_SCALE, FLIP, COLOR_JITTER = (0.08, 1.0), 0.5, 0.4
RAND_AUGMENT = "rand-m9-inc1"  # the recipe's without mstd0.5, with which timm itself may stop at Pillow 13's posterize
BATCH = 16
HANDED_OVER = (16, 256)
SPECTRUM, CONTRAST = 1.2, 55  # amplitude falls with this power of the frequency; grey levels of deviation
TO_FLOAT = [tv.ToTensor(), tv.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)]

Way = Callable[[], object]
"""One pass over the images."""


def photo(seed: int, height: int, width: int) -> Pixels:
    """uint8 (H, W, 3) noise with a photograph's spectrum; chroma is a fifth of it."""
    rng = numpy_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    waves = rng.standard_normal((3, *frequency.shape, 2)) @ [1, 1j] * frequency**-SPECTRUM
    luma, *chroma = (plane / plane.std() for plane in np.fft.irfft2(waves, (height, width)))
    colours = np.stack([luma + 0.2 * chroma[0], luma - 0.1 * (chroma[0] + chroma[1]), luma + 0.2 * chroma[1]], axis=-1)
    return np.clip(128 + CONTRAST * colours, 0, 255).astype(np.uint8)


def jpeg(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def median_rates(ways: dict[str, Way], images: int, rounds: int) -> list[float]:
    """Images per core-second of each way."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for taken, way in zip(seconds, ways.values(), strict=True):
            start = time.process_time()
            way()
            taken.append(time.process_time() - start)
    return [images / float(np.median(taken)) for taken in seconds]


def embedding(files: list[bytes], reduced: bool) -> dict[str, Way]:
    squash = tv.Compose([tv.Resize((RESIZE, RESIZE), tv.InterpolationMode.BICUBIC), tv.CenterCrop(SIDE), *TO_FLOAT])

    def ours(least_side: int | None) -> None:
        for data in files:
            embed_view(decode(data, least_side), RESIZE, SIDE, squash=True)

    ways: dict[str, Way] = {
        "torchvision on PIL": lambda: [squash(opened(data)) for data in files],
        "sept": partial(ours, None),
        "sept, decoding alone": lambda: [decode(data) for data in files],
    }
    return ways | {"sept, decoding at reduced scale": partial(ours, ample(RESIZE))} if reduced else ways


def published(side: int, recipe: MoByRecipe, policy: Policy) -> tv.Compose:
    """One view as in MoBy's released code."""

    def blur(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*policy.blur_radius)))

    jitter = tv.ColorJitter(policy.brightness, policy.contrast, policy.saturation, policy.hue)
    return tv.Compose(
        [
            tv.RandomResizedCrop(side, tuple(recipe.crop_scale), CROP_RATIO),
            tv.RandomHorizontalFlip(policy.flip),
            tv.RandomApply([jitter], policy.jitter),
            tv.RandomGrayscale(policy.grayscale),
            tv.RandomApply([tv.Lambda(blur)], policy.blur),
            tv.RandomSolarize(128, policy.solarise),
            *TO_FLOAT,
        ]
    )


def two_views(files: list[bytes], folder: Path, recipe: MoByRecipe) -> dict[str, Way]:
    write_subset(folder, ((i, decode(data)) for i, data in enumerate(files)), recipe.store_side)
    subset, views = Subset.open(folder), TwoViews(recipe, seed=0)
    cropped = CroppedSubset(subset, views)
    pipelines = [published(recipe.side, recipe, policy) for policy in views.policies]

    def on_pil(images: Iterator[Image.Image]) -> None:
        for image, pipeline in product(images, pipelines):
            pipeline(image)

    def ours(colour: bool) -> None:
        for start in range(0, len(subset), BATCH):
            batch = collate([cropped[0, sample] for sample in range(start, min(start + BATCH, len(subset)))])
            if colour:
                views(batch, start)

    return {
        "torchvision on PIL, from JPEG": lambda: on_pil(opened(data) for data in files),
        "torchvision on PIL, from the local form": lambda: on_pil(
            Image.fromarray(subset.image(i)) for i in range(len(subset))
        ),
        "sept, crops (colour is the device's)": partial(ours, False),
        "sept, crops, colour and normalisation on this core": partial(ours, True),
    }


def finetuning(files: list[bytes]) -> dict[str, Way]:
    on_pil = create_transform(
        SIDE,
        is_training=True,
        scale=FINETUNE_SCALE,
        interpolation="bicubic",
        hflip=FLIP,
        auto_augment=RAND_AUGMENT,
        color_jitter=COLOR_JITTER,
    )
    ours = FinetuneTransform(SIDE, FINETUNE_SCALE, FLIP, RAND_AUGMENT, COLOR_JITTER)
    return {
        "timm on PIL": lambda: [on_pil(opened(data)) for data in files],
        "sept": lambda: [ours(decode(data), 0, sample) for sample, data in enumerate(files)],
    }


def decoded(files: list[bytes], i: int) -> Pixels:
    return decode(files[i % len(files)])


def loaded(files: list[bytes], workers: int, images: int) -> float:
    """Images per second through the loader that embeds, once it runs."""
    dataset = EncodedViews(partial(decoded, files), Preprocess(RESIZE, SIDE, squash=True))
    batches = [list(range(start, start + BATCH)) for start in range(0, images, BATCH)]
    warm = max(1, 2 * workers)  # batches that workers have ready when the clock starts
    for done, _ in enumerate(loader(dataset, batches, workers), start=1):
        if done == warm:
            start = time.perf_counter()
    return (len(batches) - warm) * BATCH / (time.perf_counter() - start)


class Pixelled(Dataset):
    """Views without work: what is left is joining them and handing them over."""

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"view": torch.full((3, SIDE, SIDE), i % 256, dtype=torch.uint8)}


def handed_over(batch: int, batches: int) -> float:
    """Images per second that one worker joins and hands over."""
    places = [list(range(batch)) for _ in range(batches)]
    for done, _ in enumerate(loader(Pixelled(), places, 1), start=1):
        if done == 4:
            start = time.perf_counter()
    return (batches - 4) * batch / (time.perf_counter() - start)


def report(title: str, ways: dict[str, Way], images: int, rounds: int) -> None:
    print(f"\n| {title} | images / core-second | |\n|---|---|---|")
    rates = median_rates(ways, images, rounds)
    for name, rate in zip(ways, rates, strict=True):
        print(f"| {name} | {rate:,.0f} | {rate / rates[0]:.1f} × |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="of which the median counts")
    parser.add_argument("--images", type=int, default=48, help="different images a round")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2], help="worker processes of the loader")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    count, rounds = arguments.images, arguments.rounds
    files = [jpeg(photo(seed, HEIGHT, WIDTH)) for seed in range(count)]
    small = [jpeg(photo(seed, SMALL, SMALL)) for seed in range(count)]
    huge = [jpeg(photo(0, *HUGE))]
    size = f"{WIDTH} × {HEIGHT} JPEG"
    report(f"encoder's view, {SIDE} px, from {size}", embedding(files, reduced=False), count, rounds)
    report(f"the same from {HUGE[1]} × {HUGE[0]}", embedding(huge, reduced=True), 1, rounds)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        recipe = MoByRecipe(side=SIDE, store_side=LOCAL_SIDE)
        report(f"MoBy's two views, {SIDE} px, from {size}", two_views(files, Path(one), recipe), count, rounds)
        recipe = MoByRecipe(side=SMALL_SIDE, store_side=SMALL)
        title = f"MoBy's two views, {SMALL_SIDE} px, from {SMALL} × {SMALL}"
        report(title, two_views(small, Path(two), recipe), count, rounds)
    report(f"fine-tuning view, {SIDE} px, from {size}", finetuning(files), count, rounds)
    print("\n| loader of encoder's views, workers | images / second |\n|---|---|")
    for workers in arguments.workers:
        print(f"| {workers} | {loaded(files, workers, 40 * count):,.0f} |")
    print("\n| one worker, views that cost nothing, batch | images / second |\n|---|---|")
    for batch in HANDED_OVER:
        print(f"| {batch} | {handed_over(batch, 24):,.0f} |")


if __name__ == "__main__":
    main()
