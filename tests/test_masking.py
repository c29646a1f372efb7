"""iBOT's masks: their distribution as published, their bounds, and that a seed fixes them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sept.data.rng import numpy_rng
from sept.methods.ibot.masking import ATTEMPTS, block_mask, mask_ratio

RATIOS, VARIANCES = [0.0, 0.3], [0.0, 0.2]  # ViT-S/16 released recipe


def crops(count, grid=14):
    for sample in range(count):
        rng = numpy_rng(0, "mask", sample)
        ratio = mask_ratio(rng, RATIOS, VARIANCES)
        yield ratio, block_mask(rng, grid, grid, ratio)


def slow_block_mask(rng, height, width, ratio):
    """iBOT's `block` as described, cell by cell over a set, from the same draws: area, aspect, top, left."""
    masked, target, low = set(), ratio * height * width, (min(height, width) // 3) ** 2
    while len(masked) < target:
        left_over, before = target - len(masked), len(masked)
        for _ in range(10):
            area = rng.random() * (left_over - low) + low
            aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
            h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if h < 1 or w < 1 or h >= height or w >= width:
                continue
            top, left = rng.integers(0, height - h, endpoint=True), rng.integers(0, width - w, endpoint=True)
            block = {(top + y, left + x) for y in range(h) for x in range(w)}
            if 1 <= len(block - masked) <= left_over:
                masked |= block
                break
        if len(masked) == before:
            break
    return [[(y, x) in masked for x in range(width)] for y in range(height)]


@given(st.integers(3, 16), st.integers(3, 16), st.floats(0, 1), st.integers(0, 2**32))
def test_ibot_masks_equal_a_slow_sampler_of_the_published_description(height, width, ratio, seed):
    assert block_mask(numpy_rng(seed), height, width, ratio).tolist() == slow_block_mask(
        numpy_rng(seed), height, width, ratio
    )


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4), st.integers(0, 2**32))
def test_ibot_ratios_are_the_published_draws(pairs, seed):
    ratios, variances = [list(column) for column in zip(*pairs, strict=True)]
    rng = numpy_rng(seed)
    ratio, variance = pairs[rng.integers(len(pairs))]
    expected = rng.uniform(ratio - variance, ratio + variance) if variance else ratio
    assert mask_ratio(numpy_rng(seed), ratios, variances) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_ibot_masks_half_the_crops_and_about_15_percent_of_all_patches():
    drawn = list(crops(4000))
    masked = [mask for _, mask in drawn if mask.any()]
    assert len(masked) / len(drawn) == pytest.approx(0.5, abs=0.03)
    assert np.mean([mask.mean() for _, mask in drawn]) == pytest.approx(0.148, abs=0.006)  # of the released code
    assert all(mask.dtype == bool for mask in masked)


def test_ibot_ratios_are_zero_or_uniform_around_the_mean():
    ratios = np.array([mask_ratio(numpy_rng(0, i), RATIOS, VARIANCES) for i in range(4000)])
    positive = ratios[ratios > 0]
    assert len(positive) / len(ratios) == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(np.quantile(positive, [0.0, 0.25, 0.5, 0.75, 1.0]), [0.1, 0.2, 0.3, 0.4, 0.5], atol=0.02)


@given(st.integers(2, 16), st.integers(2, 16), st.floats(0, 1), st.integers(0, 2**32))
def test_ibot_masks_never_take_more_than_the_target(height, width, ratio, seed):
    mask = block_mask(numpy_rng(seed), height, width, ratio)
    assert mask.shape == (height, width)
    assert mask.sum() <= ratio * height * width


def test_ibot_masks_come_close_to_the_target():
    short = [ratio - mask.mean() for ratio, mask in crops(1000) if ratio > 0]
    assert min(short) >= 0
    assert np.mean(short) < 0.02


def test_ibot_masks_are_made_of_blocks():
    """A masked cell has far more masked neighbours than one of a mask of single cells has."""
    beside_blocks, beside_cells = [], []
    for ratio, mask in crops(400):
        if mask.any():
            cells = numpy_rng(1).permutation(mask.ravel()).reshape(mask.shape)
            for drawn, found in ((mask, beside_blocks), (cells, beside_cells)):
                found.append((drawn[:, 1:] & drawn[:, :-1]).sum() / drawn.sum())
        else:
            assert ratio == 0
    assert np.mean(beside_blocks) > 0.6 > 2 * np.mean(beside_cells)


def test_no_single_block_spans_the_grid():
    for _, mask in crops(300, grid=4):
        assert not mask.all()


class Stubborn:
    """Draws whose rectangles never fit: as tall as can be."""

    def __init__(self):
        self.draws = 0

    def random(self):
        self.draws += 1
        return 1.0

    def uniform(self, low, high):
        return high


def test_a_grid_where_no_block_fits_is_given_up():
    rng = Stubborn()
    assert not block_mask(rng, 2, 20, 0.9).any()
    assert rng.draws == ATTEMPTS


def test_ibot_mask_of_a_seed_is_golden():
    rng = numpy_rng(7, "mask", 3, 11)
    rows = ["".join(".#"[cell] for cell in row) for row in block_mask(rng, 8, 8, 0.4).astype(int)]
    assert rows == [
        "######..",
        "######..",
        "######..",
        "######..",
        "......#.",
        "........",
        "........",
        "........",
    ]
