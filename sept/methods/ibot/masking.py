"""iBOT's block-wise masking of patch grids."""

import math

import numpy as np

ATTEMPTS = 10  # to place one block before giving up
ASPECT = (0.3, 1 / 0.3)


def mask_ratio(rng: np.random.Generator, ratios: list[float], variances: list[float]) -> float:
    """One of `ratios`, chosen uniformly, shifted by a uniform draw within its variance (iBOT: 0, or .3 +- .2)."""
    choice = int(rng.integers(len(ratios)))
    low, high = ratios[choice] - variances[choice], ratios[choice] + variances[choice]
    return ratios[choice] if variances[choice] == 0 else float(rng.uniform(low, high))


def block_mask(rng: np.random.Generator, height: int, width: int, ratio: float) -> np.ndarray:
    """A (height, width) bool mask of about `ratio` of the cells, made of rectangles (iBOT released code, `block`).

    Rectangles have an area between the smallest block and what is left to mask, and a log-uniform aspect
    ratio; one is accepted if it fits strictly inside and adds between 1 and that many new cells.
    """
    mask = np.zeros((height, width), dtype=bool)
    target, smallest = ratio * height * width, (min(height, width) // 3) ** 2
    while mask.sum() < target:
        if not _add_block(rng, mask, smallest, target - mask.sum()):
            break
    return mask


def _add_block(rng: np.random.Generator, mask: np.ndarray, smallest: int, remaining: float) -> bool:
    height, width = mask.shape
    for _ in range(ATTEMPTS):
        area = smallest + (remaining - smallest) * rng.random()  # near the end, less than the smallest block is left
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < h < height and 0 < w < width):
            continue
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        block = mask[top : top + h, left : left + w]
        added = block.size - int(block.sum())
        if 0 < added <= remaining:
            block[:] = True
            return True
    return False
