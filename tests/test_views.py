"""Views of the self-supervised learners: functions of the seed and the place, never of a global state."""

import pickle

import numpy as np
import pytest
import torch
from micro import SIDE, ibot, images, moby, subset

from sept.data.augment import draw_parameters, photometric
from sept.data.loading import collate
from sept.data.rng import generator
from sept.methods.ibot.views import MultiCrop
from sept.methods.views import CroppedSubset, TwoViews

GRID = (4, 4)


def two_views(seed=0, **changes):
    return TwoViews(moby(**changes), seed)


def multi_crop(seed=0, **changes):
    return MultiCrop(ibot(**changes), seed, GRID)


def same(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("make", [two_views, multi_crop])
def test_moby_and_ibot_crops_depend_on_seed_epoch_and_sample_alone(make):
    image = images(1, side=64)[0]
    first = make().crop(image, 2, 5)
    torch.manual_seed(1)
    np.random.seed(1)
    views = make()
    views.crop(image, 0, 0)  # what was cropped before does not matter
    assert same(views.crop(image, 2, 5), first)
    for other in (views.crop(image, 3, 5), views.crop(image, 2, 6), make(seed=1).crop(image, 2, 5)):
        assert not same(other, first)


@pytest.mark.parametrize("make", [two_views, multi_crop])
def test_moby_and_ibot_colours_depend_on_seed_and_step_alone(make):
    crops = [torch.stack(c) for c in zip(*(make().crop(i, 0, n) for n, i in enumerate(images(4))), strict=True)]
    first = make().colour(crops, 7)
    torch.manual_seed(1)
    assert same(make().colour(crops, 7), first)
    assert not same(make().colour(crops, 8), first)
    assert not same(make(seed=1).colour(crops, 7), first)


def test_moby_two_views_of_an_image_differ_in_crop_and_in_colour():
    views = two_views()
    first, second = views.crop(images(1, side=64)[0], 0, 0)
    assert first.shape == second.shape == (3, SIDE, SIDE)
    assert first.dtype == torch.uint8
    assert not torch.equal(first, second)
    batch = torch.stack([first] * 8)
    coloured = views({"crops": [batch, batch]}, 0)
    assert [view.dtype for view in coloured] == [torch.float32] * 2
    assert not torch.equal(*coloured)
    assert not torch.equal(coloured[0][0], coloured[0][1])


def test_moby_views_are_the_published_ones():
    policies = two_views(side=224).policies
    for policy in policies:
        assert (policy.flip, policy.jitter, policy.grayscale) == (0.5, 0.8, 0.2)
        assert (policy.brightness, policy.contrast, policy.saturation, policy.hue) == (0.4, 0.4, 0.2, 0.1)
        assert policy.blur_radius == (0.1, 2.0)
    assert [(policy.blur, policy.solarise) for policy in policies] == [(1.0, 0.0), (0.1, 0.2)]
    assert two_views().how == "bilinear"
    assert two_views().crops == [(SIDE, (0.08, 1.0))] * 2


def test_ibot_views_are_the_published_ones():
    views = multi_crop(side=224, local_side=96, local_crops=10)
    assert [(policy.blur, policy.solarise) for policy in views.policies] == [(1.0, 0.0), (0.1, 0.2)] + [(0.5, 0.0)] * 10
    assert {policy.grayscale for policy in views.policies} == {0.2}
    assert views.crops == [(224, (0.25, 1.0))] * 2 + [(96, (0.05, 0.25))] * 10
    assert views.how == "bicubic"


def test_moby_blur_is_scaled_with_the_side():
    assert two_views(side=112).policies[0].blur_radius == (0.05, 1.0)


def test_jitter_scales_the_colour_operations():
    policy = two_views(jitter=0.5).policies[0]
    assert (policy.brightness, policy.contrast, policy.saturation, policy.hue) == (0.2, 0.2, 0.1, 0.05)
    assert policy.jitter == 0.8


def test_ibot_crops_and_masks_have_the_recipes_shapes(tmp_path):
    views = multi_crop(local_crops=3)
    dataset = CroppedSubset(subset(tmp_path, 4), views)
    batch = collate([dataset[0, sample] for sample in range(4)])
    assert [tuple(crop.shape) for crop in batch["crops"]] == [(4, 3, 32, 32)] * 2 + [(4, 3, 16, 16)] * 3
    assert [tuple(mask.shape) for mask in batch["masks"]] == [(4, 16)] * 2
    assert all(mask.dtype == torch.bool for mask in batch["masks"])
    coloured, masks = views(batch, 0)
    assert [view.shape for view in coloured] == [crop.shape for crop in batch["crops"]]
    assert same(masks, batch["masks"])


def test_ibot_masks_depend_on_seed_epoch_and_sample_alone():
    def masks(epochs, seed=0):
        return torch.stack([mask for e in epochs for s in range(20) for mask in multi_crop(seed).masks(e, s)])

    first = masks([0])
    torch.manual_seed(1)
    assert torch.equal(masks([0]), first)
    assert not torch.equal(masks([1]), first)
    assert not torch.equal(masks([0], seed=1), first)
    assert first.any(dim=1).float().mean().item() == pytest.approx(0.5, abs=0.25)
    assert not torch.equal(first[0::2], first[1::2])


def test_moby_items_have_no_masks(tmp_path):
    item = CroppedSubset(subset(tmp_path, 2), two_views())[1, 0]
    assert item.keys() == {"crops"}
    assert [tuple(crop.shape) for crop in item["crops"]] == [(3, SIDE, SIDE)] * 2


def test_a_rank_colours_its_share_as_one_process_would(monkeypatch):
    views, crops = two_views(), [torch.stack([torch.from_numpy(i).permute(2, 0, 1) for i in images(6)])] * 2
    whole = views.colour(crops, 3)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        rows = slice(2 * rank, 2 * rank + 2)
        assert same(views.colour([crop[rows] for crop in crops], 3), [view[rows] for view in whole])


def test_colours_are_those_of_the_policy(tmp_path):
    views, crop = two_views(seed=5), torch.stack([torch.from_numpy(i).permute(2, 0, 1) for i in images(4)])
    for view, (coloured, policy) in enumerate(zip(views.colour([crop, crop], 9), views.policies, strict=True)):
        draws = draw_parameters(generator(5, "colour", 9, view), 4, policy)
        assert torch.equal(coloured, photometric(crop, draws))


@pytest.mark.parametrize("make", [two_views, multi_crop])
def test_cropped_subsets_can_be_sent_to_workers(tmp_path, make):
    dataset = CroppedSubset(subset(tmp_path, 2), make())
    copy = pickle.loads(pickle.dumps(dataset))
    assert same(copy[3, 1]["crops"], dataset[3, 1]["crops"])


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_views_are_mirrored_with_the_probability_of_the_recipe(probability):
    policies = two_views(flip=probability).policies
    assert [draw_parameters(generator(0, "colour", 0, 0), 64, each).flip.float().mean() for each in policies] == [
        probability,
        probability,
    ]
