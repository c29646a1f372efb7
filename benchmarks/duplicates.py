"""How many copies of test images are found, and how many clean images are taken for one: the curves behind the
thresholds of `sept.retrieval.duplicates`.

    python benchmarks/duplicates.py [--clean 10000] [--photos 2000]

For each task of the drawn world (800 test images of 32 px; clean ones of the same 16 classes) and for scenes of 256 px,
a row a setting of (WHOLE, WINDOW): the share of clean images flagged, then of each kind of copy found. Below, at 0.05 %
of clean images flagged, what 64 bits of the DCT (pHash), 128 differences (dHash) and the encoder's cosine find.
`mixed` is mirrored half of the time, cropped by up to 5 %, resized by 1/2 to 2 and re-encoded at 30 to 95. Images are
JPEGs with subsampled colour throughout.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.fft import dctn

import sept
from sept.backbones.networks import build
from sept.backbones.weights import load_backbone
from sept.data.images import Pixels, decode
from sept.data.patterns.domains import TARGETS, classes, draw
from sept.data.transforms import embed_view, normalise
from sept.retrieval import duplicates
from sept.retrieval.fingerprints import THUMBNAIL, Thumbnails, area_means, thumbnails
from sept.retrievers.encoder import cls_mean

SETTINGS = ((0.005, 0.0025), (0.01, 0.0045), (0.014, 0.0065), (0.02, 0.009), (0.03, 0.013), (0.05, 0.02))
SIDE, PER_CLASS, SCENE_SIDE, SCENE_TESTS = 32, 50, 256, 600
POOL, TEST = 0, 1 << 40  # index spaces of the drawn images
CLEAN_FLAGGED = 0.0005
MICRO = {"img_size": 32, "patch_size": 4, "embed_dim": 64, "depth": 3, "num_heads": 2}
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)

Copy = Callable[[Pixels, np.random.Generator], Pixels]


def encoded(pixels: Pixels, quality: float) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=int(quality))
    return decode(stream.getvalue())


def resized(pixels: Pixels, scale: float, rng: np.random.Generator) -> Pixels:
    height, width = (max(8, round(scale * side)) for side in pixels.shape[:2])
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), FILTERS[rng.integers(len(FILTERS))]))


def cropped(pixels: Pixels, kept: float, rng: np.random.Generator) -> Pixels:
    height, width = (round(kept * side) for side in pixels.shape[:2])
    top, left = rng.integers(pixels.shape[0] - height + 1), rng.integers(pixels.shape[1] - width + 1)
    return pixels[top : top + height, left : left + width]


def mixed(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    turned = pixels[:, :: rng.choice((-1, 1))]
    smaller = cropped(turned, rng.uniform(0.95, 1), rng)
    return encoded(resized(smaller, 2 ** rng.uniform(-1, 1), rng), rng.integers(30, 96))


COPIES: dict[str, Copy] = {
    "jpeg 30-95": lambda pixels, rng: encoded(pixels, rng.integers(30, 96)),
    "jpeg 30": lambda pixels, rng: encoded(pixels, 30),
    "x 1/2-2": lambda pixels, rng: encoded(resized(pixels, 2 ** rng.uniform(-1, 1), rng), rng.integers(75, 96)),
    "x 1/2": lambda pixels, rng: encoded(resized(pixels, 0.5, rng), 85),
    "mirrored": lambda pixels, rng: encoded(pixels[:, ::-1], rng.integers(60, 96)),
    "crop 3%": lambda pixels, rng: encoded(cropped(pixels, 0.97, rng), 90),
    "crop 6%": lambda pixels, rng: encoded(cropped(pixels, 0.94, rng), 90),
    "crop 10%": lambda pixels, rng: encoded(cropped(pixels, 0.90, rng), 90),
    "mixed": mixed,
}


def scene(number: int) -> Pixels:
    """Cloudy texture, half of the time ground under sky, and up to five blobs in front: no photograph, but as smooth
    and as low in contrast as many are."""
    rng = np.random.default_rng((7, number))
    frequency = np.fft.fftfreq(SCENE_SIDE)
    power = np.hypot(frequency[:, None], frequency)
    power[0, 0] = 1
    clouds = np.fft.ifft2(np.fft.fft2(rng.standard_normal((3, *power.shape))) * power ** -rng.uniform(0.9, 2.0)).real
    mix = np.array([[1, 0, 0], [0.8, 0.4, 0], [0.7, 0.3, 0.3]])
    picture = np.einsum("cd,dhw->hwc", mix, clouds / clouds.std()) * rng.uniform(25, 60) + rng.uniform(70, 180, 3)
    y, x = np.mgrid[0:SCENE_SIDE, 0:SCENE_SIDE] / SCENE_SIDE
    if rng.random() < 0.5:
        sky, ground = rng.uniform(20, 235, (2, 3))
        picture = 0.3 * picture + 0.7 * (sky * (1 - y[..., None]) + ground * y[..., None])
    for _ in range(rng.integers(6)):
        across, down, wide, high = rng.random(4) * (1, 1, 0.35, 0.35) + (0, 0, 0.03, 0.03)
        inside = ((x - across) / wide) ** 2 + ((y - down) / high) ** 2 < 1
        picture[inside] = 0.3 * picture[inside] + 0.7 * rng.uniform(0, 255, 3)
    return encoded((picture + rng.normal(0, 2, picture.shape)).clip(0, 255).astype(np.uint8), 90)


def grey(of: Thumbnails) -> np.ndarray:
    return of.grey.astype(np.float32)


def dct_bits(of: Thumbnails) -> np.ndarray:
    """(n, 63) signs about the median of the 8 x 8 lowest frequencies but the mean."""
    low = dctn(grey(of), axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(of), -1)[:, 1:]
    return low > np.median(low, axis=1, keepdims=True)


def difference_bits(of: Thumbnails) -> np.ndarray:
    """(n, 128) signs of differences to the right and down, at 9 x 8 and 8 x 9."""
    eight, nine = area_means(THUMBNAIL, 0, THUMBNAIL, 8), area_means(THUMBNAIL, 0, THUMBNAIL, 9)
    across, down = eight @ grey(of) @ nine.T, nine @ grey(of) @ eight.T
    return np.concatenate(
        [(np.diff(across, axis=2) > 0).reshape(len(of), -1), (np.diff(down, axis=1) > 0).reshape(len(of), -1)], 1
    )


def features(images: Sequence[Pixels]) -> np.ndarray:
    """(n, 128) of the micro retriever that comes with the package."""
    vit = build("vit_small_patch16_224", MICRO, side=SIDE).eval().requires_grad_(False)
    load_backbone(vit, Path(sept.__file__).parent / "assets" / "ibot_micro.safetensors")
    views = torch.stack([embed_view(np.ascontiguousarray(image), SIDE, SIDE, squash=True) for image in images])
    return torch.cat([cls_mean(vit, normalise(batch)) for batch in views.split(256)]).numpy()


def hamming(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    signs = 2.0 * left - 1, 2.0 * right - 1
    return (left.shape[1] - signs[0] @ signs[1].T) / 2


def found(copies: Thumbnails, tests: Thumbnails) -> float:
    return 100 * len(duplicates.copies(copies, tests).nearest()) / len(copies)


def curve(tests: Thumbnails, clean: Thumbnails, planted: dict[str, Thumbnails]) -> None:
    chosen = duplicates.WHOLE, duplicates.WINDOW
    for setting in SETTINGS:
        duplicates.WHOLE, duplicates.WINDOW = setting
        shares = "".join(f"{found(copies, tests):>11.1f}" for copies in planted.values())
        mark = "  <-" if setting == chosen else ""
        print(f"{setting[0]:>6.3f} {setting[1]:>6.4f} {found(clean, tests):>9.3f}{shares}{mark}", flush=True)
    duplicates.WHOLE, duplicates.WINDOW = chosen


def baseline(name: str, nearest: Callable[[str], np.ndarray], kinds: Sequence[str]) -> None:
    """nearest(kind) gives each image's distance to the nearest test image, mirrored or not; clean ones set the cut."""
    cut = np.quantile(nearest("clean"), CLEAN_FLAGGED, method="lower")
    print(f"{name:<23}" + "".join(f"{100 * (nearest(kind) < cut).mean():>11.1f}" for kind in kinds), flush=True)


def report(name: str, tests: list[Pixels], clean: list[Pixels], with_features: bool) -> None:
    rng = np.random.default_rng(1)
    planted = {kind: [make(image, rng) for image in tests] for kind, make in COPIES.items()}
    kept = {kind: thumbnails(images) for kind, images in {"clean": clean, **planted}.items()}
    references = thumbnails(tests)
    print(f"\n{name}: {len(tests)} test images, {len(clean)} clean ones; % flagged, % found")
    print(f"{'whole':>6} {'window':>6} {'clean':>9}" + "".join(f"{kind:>11}" for kind in COPIES))
    curve(references, kept["clean"], {kind: kept[kind] for kind in COPIES})
    for label, bits in (("dct bits", dct_bits), ("difference bits", difference_bits)):
        both = np.concatenate([bits(references), bits(references.mirrored())])
        baseline(label, lambda kind, b=bits, r=both: hamming(b(kept[kind]), r).min(1), list(COPIES))
    if with_features:
        vectors = {kind: features(images) for kind, images in {"clean": clean, **planted}.items()}
        both = np.concatenate([features(tests), features([image[:, ::-1] for image in tests])])
        baseline("cosine of features", lambda kind: (1 - vectors[kind] @ both.T).min(1), list(COPIES))
        own = np.arange(len(tests))
        least = [f"{np.quantile((vectors[k] * both[own]).sum(1), 0.01):>11.2f}" for k in COPIES]
        print(f"{'least cosine, 1 %':<23}" + "".join(least))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=int, default=10_000)
    parser.add_argument("--photos", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for domain in TARGETS:
        labels = range(classes(domain))
        tests = [encoded(draw(domain, c, SIDE, 0, TEST + n), 92) for c in labels for n in range(PER_CLASS)]
        clean = [encoded(draw(domain, n % len(labels), SIDE, 0, POOL + n), 92) for n in range(options.clean)]
        report(domain, tests, clean, with_features=True)
    scenes = [scene(number) for number in range(SCENE_TESTS + options.photos)]
    report("scenes of 256 px", scenes[:SCENE_TESTS], scenes[SCENE_TESTS:], with_features=False)


if __name__ == "__main__":
    main()
