"""Crops and resizes against Pillow and torchvision; stateless fine-tuning views."""

import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from torchvision import transforms as tv
from torchvision.transforms import v2

from sept.data.rng import numpy_rng, seeded
from sept.data.transforms import (
    BOX_TRIES,
    BOX_UNIFORMS,
    FinetuneTransform,
    boxes_from_uniforms,
    central_box,
    crop_resize,
    embed_view,
    eval_view,
    normalise,
    random_resized_crop_box,
)
from sept.transfer.recipes import Classify

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
PIL_FILTER = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def photo(height, width, seed=0):
    """Smooth colour patches, uint8 (H, W, 3)."""
    coarse = numpy_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def differences(ours, theirs):
    return (ours.permute(1, 2, 0).int() - torch.from_numpy(np.array(theirs)).int()).abs()


def grey_levels_apart(ours, theirs):
    return differences(ours, theirs).max().item()


def equal_but_for_rounding(ours, theirs):
    """At most one value in 50 is one grey level off, one in 10,000 two."""
    apart = differences(ours, theirs)
    return apart.max() <= 2 and (apart > 0).float().mean() < 1 / 50 and (apart > 1).float().mean() < 1 / 10_000


@pytest.mark.parametrize(("height", "width"), [(60, 80), (200, 50), (20, 120)])
def test_boxes_are_distributed_as_torchvisions(height, width):
    rng = numpy_rng(1)
    ours = np.array([random_resized_crop_box(rng, height, width, SCALE, RATIO) for _ in range(4000)])
    canvas = torch.empty(3, height, width)
    with seeded(2):
        theirs = np.array([tv.RandomResizedCrop.get_params(canvas, SCALE, RATIO) for _ in range(4000)])
    quantiles = np.linspace(0, 1, 21)[1:-1]
    for measure in (
        lambda b: b[:, 2] * b[:, 3] / (height * width),
        lambda b: np.log(b[:, 3] / b[:, 2]),
        lambda b: (b[:, 0] + b[:, 2] / 2) / height,
        lambda b: (b[:, 1] + b[:, 3] / 2) / width,
    ):
        np.testing.assert_allclose(
            np.quantile(measure(ours), quantiles), np.quantile(measure(theirs), quantiles), atol=0.05
        )


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_one_box_is_the_box_of_a_batch_of_one(height, width, seed):
    uniforms = numpy_rng(seed).random((1, BOX_TRIES, BOX_UNIFORMS))
    one = random_resized_crop_box(numpy_rng(seed), height, width, SCALE, RATIO)
    assert list(one) == boxes_from_uniforms(uniforms, height, width, SCALE, RATIO)[0].tolist()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_boxes_lie_within_the_image(height, width, seed):
    top, left, box_height, box_width = random_resized_crop_box(numpy_rng(seed), height, width, SCALE, RATIO)
    assert 0 <= top < top + box_height <= height
    assert 0 <= left < left + box_width <= width


@pytest.mark.parametrize(("height", "width"), [(1000, 10), (10, 1000), (30, 30)])
def test_fallback_box_is_torchvisions(height, width):
    never = (4.0, 4.0)  # four times the image's area: no try can fit
    theirs = tv.RandomResizedCrop.get_params(torch.empty(3, height, width), never, RATIO)
    assert random_resized_crop_box(numpy_rng(0), height, width, never, RATIO) == theirs
    assert central_box(height, width, RATIO) == theirs


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [8, 32, 100])
def test_crop_resize_is_pillows_resize_of_the_crop(side, interpolation):
    image = photo(90, 120)
    for top, left, height, width in [(0, 0, 90, 120), (10, 50, 40, 31), (89, 119, 1, 1), (3, 4, 20, 60)]:
        crop = Image.fromarray(image[top : top + height, left : left + width])
        ours = crop_resize(image, (top, left, height, width), side, interpolation)
        assert ours.dtype == torch.uint8
        assert ours.is_contiguous()
        assert grey_levels_apart(ours, crop.resize((side, side), PIL_FILTER[interpolation])) <= 1


def test_crop_resize_sees_nothing_outside_the_box():
    image = photo(50, 50)
    masked = np.zeros_like(image)
    masked[10:30, 20:40] = image[10:30, 20:40]
    box = (10, 20, 20, 20)
    assert torch.equal(crop_resize(image, box, 32, "bicubic"), crop_resize(masked, box, 32, "bicubic"))


def test_read_only_images_are_accepted():
    def views(image):
        return crop_resize(image, (0, 0, 40, 40), 32, "bilinear"), embed_view(image, 37, 32, squash=True)

    image = photo(40, 40)
    expected = views(image)
    image.setflags(write=False)
    assert all(map(torch.equal, views(image), expected))


def rows_then_columns(image, height, width):
    """Pillow's bicubic resize in the order all its versions up to 12 use (python-pillow/Pillow#9549)."""
    rows_done = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BICUBIC)
    return rows_done.resize((width, height), Image.Resampling.BICUBIC)


SIZES = [(256, 256), (180, 333), (500, 375), (375, 500), (300, 400), (61, 64)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_embed_view_squashes_to_a_square_as_pillow_does(height, width):
    image = photo(height, width)
    theirs = tv.CenterCrop(224)(rows_then_columns(image, 256, 256))
    assert equal_but_for_rounding(embed_view(image, 256, 224, squash=True), theirs)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_embed_view_of_the_shorter_side_is_ibots_evaluation(height, width):
    image = photo(height, width)
    resized_width, resized_height = tv.Resize(256)(Image.fromarray(image)).size
    theirs = tv.CenterCrop(224)(rows_then_columns(image, resized_height, resized_width))
    assert equal_but_for_rounding(embed_view(image, 256, 224, squash=False), theirs)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_embed_view_is_close_to_this_pillows_own_resize(height, width):
    image = photo(height, width)
    theirs = tv.Compose([tv.Resize(256, tv.InterpolationMode.BICUBIC), tv.CenterCrop(224)])(Image.fromarray(image))
    assert grey_levels_apart(embed_view(image, 256, 224, squash=False), theirs) <= 2


def test_embed_view_is_torchvisions_resize_of_tensors():
    image = photo(180, 333)
    resize = v2.Resize((256, 256), tv.InterpolationMode.BICUBIC, antialias=True)
    theirs = tv.CenterCrop(224)(resize(torch.from_numpy(image).permute(2, 0, 1)))
    assert (
        embed_view(image, 256, 224, squash=True).int() - theirs.int()
    ).abs().max() <= 1  # 0 where v2 has no float way


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_embed_view_takes_any_size(height, width, squash):
    view = embed_view(np.full((height, width, 3), 77, np.uint8), 37, 32, squash)
    assert view.shape == (3, 32, 32)
    assert (view == 77).all()


def test_embed_view_of_a_hair_is_its_middle():
    hair = np.zeros((20_001, 1, 3), np.uint8)
    hair[9_990:10_011] = 200
    assert (embed_view(hair, 256, 224, squash=False) == 200).all()


def test_embed_view_refuses_a_crop_larger_than_the_resize():
    with pytest.raises(AssertionError, match="cannot crop 224"):
        embed_view(photo(10, 10), 200, 224, squash=True)


def test_eval_view_is_simmims():
    image = photo(300, 400)
    theirs = tv.CenterCrop(224)(rows_then_columns(image, 256, 341))
    assert equal_but_for_rounding(eval_view(image, 224), theirs)
    assert eval_view(image, 32).shape == (3, 32, 32)


def test_normalise_is_torchvisions():
    pixels = torch.from_numpy(photo(20, 30)).permute(2, 0, 1)
    imagenet = tv.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    theirs = tv.Compose([tv.ConvertImageDtype(torch.float32), imagenet])
    torch.testing.assert_close(normalise(pixels[None])[0], theirs(pixels))
    torch.testing.assert_close(normalise(pixels[None] / 255)[0], theirs(pixels))


@pytest.fixture(scope="module")
def finetune_view():
    return FinetuneTransform(48, (0.08, 1.0), 0.5, "rand-m9-mstd0.5-inc1", 0.4)


def test_finetune_views_depend_on_their_parts_alone(finetune_view):
    image = photo(64, 80)
    first = finetune_view(image, 1, "finetune", 0, 7)
    random.random(), np.random.rand(), torch.rand(1)
    assert first.dtype == torch.uint8
    assert first.shape == (3, 48, 48)
    assert torch.equal(finetune_view(image, 1, "finetune", 0, 7), first)
    assert not torch.equal(finetune_view(image, 1, "finetune", 1, 7), first)
    assert not torch.equal(finetune_view(image, 1, "finetune", 0, 8), first)


@pytest.mark.parametrize(("height", "width"), [(64, 80), (300, 90)])
@pytest.mark.parametrize("auto_augment", [None, "rand-m7-inc1"])
def test_finetune_views_are_timms_but_for_the_rounding_of_the_crop(height, width, auto_augment):
    image = photo(height, width)
    ours = FinetuneTransform(48, (0.08, 1.0), 0.5, auto_augment, 0.0)
    theirs = create_transform(
        48,
        is_training=True,
        scale=(0.08, 1.0),
        interpolation="bicubic",
        auto_augment=auto_augment,
        color_jitter=0.0,
        normalize=False,
    )
    apart = []
    for sample in range(60):
        with seeded(0, sample):
            expected = theirs(Image.fromarray(image))
        apart.append((ours(image, 0, sample).int() - expected.int()).abs().float())
    assert np.median([a.max() for a in apart]) <= 1
    assert torch.stack(apart).mean() < 0.2  # where RandAugment cuts levels off, one level becomes many


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_finetune_views_of_a_few_pixels(finetune_view, size):
    for sample in range(40):
        assert finetune_view(np.full((*size, 3), 9, np.uint8), 0, sample).shape == (3, 48, 48)


def test_finetune_views_leave_the_global_generators_alone(finetune_view):
    with seeded(3):
        expected = random.random(), np.random.rand(), torch.rand(1)
    with seeded(3):
        finetune_view(photo(64, 80), 1, 2)
        assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_finetune_transform_can_be_sent_to_a_worker(finetune_view):
    image = photo(64, 80)
    assert torch.equal(pickle.loads(pickle.dumps(finetune_view))(image, 4), finetune_view(image, 4))


def test_finetune_views_survive_the_full_magnitude_of_posterize():
    transform = FinetuneTransform(32, (0.5, 1.0), 0.5, "rand-m10-mstd0.5-inc1", 0.4)
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for sample in range(200):
        assert transform(image, 0, "shot", 0, sample).shape == (3, 32, 32)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_fine_tuning_mirrors_with_the_probability_of_the_recipe(flip):
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    view = FinetuneTransform(16, (1.0, 1.0), flip, None, 0.0)(image, 0, 0)
    straight = torch.from_numpy(image).permute(2, 0, 1)
    left, right = view[:, :, 0].float().mean(), view[:, :, -1].float().mean()
    expected = straight.flip(2) if flip else straight
    assert (left < right) == (expected[:, :, 0].float().mean() < expected[:, :, -1].float().mean())


def test_few_shots_are_seen_for_the_minimum_of_steps_and_many_for_the_epochs():
    recipe = Classify(epochs=40, min_steps=300, batch_size=64, warmup_epochs=4, test_every=20)
    few = recipe.settled(230)  # 3 steps an epoch
    assert (few.epochs, few.warmup_epochs, few.test_every) == (100, 10, 50)
    assert recipe.settled(10_000) == recipe
