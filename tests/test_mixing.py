"""Mixup, CutMix and random erasing against timm's formulas and distributions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.data.mixup import mixup_target, rand_bbox
from timm.data.random_erasing import RandomErasing

from sept.data.rng import generator, numpy_rng, seeded
from sept.data.transforms import Mix, draw_cutmix_box, draw_erasing_boxes, draw_mix, erase, mix_images, soft_targets

RECIPE = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 1.0, "switch_prob": 0.5}
ERASING = {"prob": 0.25, "area": (0.02, 1 / 3), "aspect": (0.3, 3.3)}


def images(batch_size, side=16):
    return torch.rand(batch_size, 3, side, side, generator=generator(0))


@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_targets_are_timms_and_sum_to_one(batch_size):
    labels = torch.arange(batch_size) % 3
    targets = soft_targets(labels, 7, 0.1, Mix(0.3, None))
    torch.testing.assert_close(targets.sum(1), torch.ones(batch_size))
    torch.testing.assert_close(targets, mixup_target(labels, 7, 0.3, 0.1))


@pytest.mark.parametrize("batch_size", [4, 5])
def test_mixup_blends_with_the_reversed_batch(batch_size):
    batch = images(batch_size)
    before = batch.clone()
    torch.testing.assert_close(mix_images(batch, Mix(0.3, None)), 0.3 * batch + 0.7 * batch.flip(0))
    assert torch.equal(batch, before)


@pytest.mark.parametrize("batch_size", [4, 5])
def test_cutmix_pastes_the_box_of_the_reversed_batch(batch_size):
    batch = images(batch_size)
    mixed = mix_images(batch, Mix(0.5, (2, 3, 5, 7)))
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[2:7, 3:10] = True
    assert torch.equal(mixed[..., inside], batch.flip(0)[..., inside])
    assert torch.equal(mixed[..., ~inside], batch[..., ~inside])


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_share_is_that_of_the_pixels_kept(height, width, seed):
    mix = draw_mix(numpy_rng(seed), height, width, 0.0, 1.0, 1.0, 0.5)
    top, left, box_height, box_width = mix.box
    assert 0 <= top <= top + box_height <= height
    assert 0 <= left <= left + box_width <= width
    assert mix.share == pytest.approx(1 - box_height * box_width / (height * width))


def test_kinds_and_shares_come_as_often_as_configured():
    draws = [draw_mix(numpy_rng(0, step), 32, 32, **RECIPE | {"prob": 0.8}) for step in range(3000)]
    unmixed = [d for d in draws if d.share == 1.0 and d.box is None]
    mixups = [d.share for d in draws if d.box is None and d.share != 1.0]
    cuts = [d for d in draws if d.box is not None]
    assert len(unmixed) / 3000 == pytest.approx(0.2, abs=0.03)
    assert len(cuts) / (len(cuts) + len(mixups)) == pytest.approx(0.5, abs=0.04)
    reference = numpy_rng(9).beta(0.8, 0.8, 100_000)
    quantiles = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(np.quantile(mixups, quantiles), np.quantile(reference, quantiles), atol=0.06)


def test_an_alpha_of_zero_turns_its_kind_off():
    steps = range(50)
    assert all(draw_mix(numpy_rng(s), 9, 9, **RECIPE | {"cutmix_alpha": 0}).box is None for s in steps)
    assert all(draw_mix(numpy_rng(s), 9, 9, **RECIPE | {"mixup_alpha": 0}).box is not None for s in steps)
    off = RECIPE | {"mixup_alpha": 0, "cutmix_alpha": 0}
    assert {draw_mix(numpy_rng(s), 9, 9, **off) for s in steps} == {Mix(1.0, None)}


def test_the_same_generator_gives_the_same_mix():
    assert draw_mix(numpy_rng(1, 2), 32, 32, **RECIPE) == draw_mix(numpy_rng(1, 2), 32, 32, **RECIPE)


def test_cutmix_boxes_are_distributed_as_timms():
    ours = np.array([draw_cutmix_box(numpy_rng(i), 40, 60, 0.6) for i in range(3000)])
    with seeded(1):
        theirs = np.array([rand_bbox((40, 60), 0.6) for _ in range(3000)])
    theirs = np.stack([theirs[:, 0], theirs[:, 2], theirs[:, 1] - theirs[:, 0], theirs[:, 3] - theirs[:, 2]], 1)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=1.0)
    np.testing.assert_allclose(np.quantile(ours, [0.1, 0.5, 0.9], 0), np.quantile(theirs, [0.1, 0.5, 0.9], 0), atol=2.5)


def test_erasing_fills_boxes_with_unit_noise_and_nothing_else():
    batch = torch.full((600, 3, 32, 32), 9.0)
    erased = erase(batch, numpy_rng(0), **ERASING)
    assert (batch == 9).all()
    touched = (erased != 9).any(1)  # (B, H, W)
    rows = touched.flatten(1).any(1)
    assert rows.float().mean().item() == pytest.approx(0.25, abs=0.05)
    noise = erased.movedim(1, -1)[touched]
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(erase(batch, numpy_rng(0), **ERASING), erased)
    for mask in touched[rows]:
        box = mask.any(1).sum() * mask.any(0).sum()
        assert box == mask.sum()


def test_erased_boxes_are_distributed_as_timms():
    area, aspect = ERASING["area"], ERASING["aspect"]
    ours = draw_erasing_boxes(numpy_rng(1), 2000, 48, 32, 1.0, area, aspect)
    with seeded(1):
        timms = RandomErasing(1.0, *area, *aspect, mode="pixel", device="cpu")
        touched = timms(torch.full((2000, 3, 48, 32), 9.0)).ne(9).any(1)
    theirs = np.stack([touched.any(2).sum(1), touched.any(1).sum(1)], 1)
    quantiles = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(np.quantile(ours[:, 2:], quantiles, 0), np.quantile(theirs, quantiles, 0), atol=1.0)
    assert (ours[:, :2] + ours[:, 2:] <= [48, 32]).all()
