"""Batched augmentation against torchvision's operators and distributions."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy.stats import chisquare, kstest, wasserstein_distance
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch.nn.functional import pad
from torchvision import transforms as tv
from torchvision.transforms import functional as tvf

from sept.data.augment import (
    Policy,
    _blends,
    crop_resize_batch,
    draw_parameters,
    photometric,
    random_boxes,
    resize_by_products,
    scaled_blur_radius,
)
from sept.data.colour import blend_, blur_kernels, gaussian_blur, grey, shift_hue_, solarise
from sept.data.rng import generator, numpy_rng, seeded
from sept.data.transforms import crop_resize, normalise

MOBY_FIRST = Policy(
    flip=0.5,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grayscale=0.2,
    blur=1.0,
    blur_radius=(0.1, 2.0),
    solarise=0.0,
)
NOTHING = Policy(0, 0, 0.4, 0.4, 0.2, 0.1, 0, 0, (0.1, 2.0), 0)
BUSY = Policy(0.5, 0.9, 0.4, 0.4, 0.2, 0.1, 0.3, 0.5, (0.1, 2.0), 0.4)
TORCHVISION = [tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation]


def floats(batch_size=6, height=20, width=24):
    images = torch.rand(batch_size, 3, height, width, generator=generator(0))
    images[0] = images[0, :1]  # grey: no hue
    images[1] = (images[1] > 0.5).float()  # corners of the colour cube
    images[2] *= 1e-3  # nearly black
    return images


def pixels(batch_size=6, height=20, width=24):
    return floats(batch_size, height, width).mul(255).round().to(torch.uint8)


def each(operation, images, factors):
    return torch.stack([operation(image, float(factor)) for image, factor in zip(images, factors, strict=True)])


@pytest.fixture(params=["cpu", "device"])
def way(request, monkeypatch):
    """Both ways of working, that of devices on numbers of the CPU."""
    if request.param == "device":
        for module in ("colour", "augment"):
            monkeypatch.setattr(f"sept.data.{module}.on_cpu", lambda images: False)
    return request.param


def weights(operations, factors):
    """Of one blend of each image: brightness, contrast or saturation by a factor, or nothing for hue."""
    order = torch.stack([operations] * 4, dim=1)
    return _blends(torch.stack([factors] * 4, dim=1), order)[:, 0]


@pytest.mark.parametrize("operation", range(3))
def test_blends_are_torchvisions(way, operation):
    images, factors = floats(), torch.tensor([0.6, 0.8, 1.0, 1.1, 1.2, 1.4])
    ours = blend_(images.clone(), weights(torch.full((6,), operation), factors))
    torch.testing.assert_close(ours, each(TORCHVISION[operation], images, factors), atol=1e-5, rtol=0)


def test_each_image_gets_its_own_operation(way):
    images, factors = floats(4), torch.tensor([0.7, 1.3, 0.8, 0.1])
    ours = blend_(images.clone(), weights(torch.arange(4), factors))
    for i, operation in enumerate(TORCHVISION):
        torch.testing.assert_close(ours[i], operation(images[i], factors[i].item()), atol=1e-5, rtol=0)
    assert torch.equal(ours[3], images[3])  # hue is not a blend


def test_hue_is_torchvisions(way):
    images, shifts = floats(), torch.tensor([-0.5, -0.1, 0.3, 0.0, 0.1, 0.5])
    ours = shift_hue_(images.clone(), shifts)
    torch.testing.assert_close(ours, each(tvf.adjust_hue, images, shifts), atol=1e-5, rtol=0)


def test_grey_and_solarise_are_torchvisions():
    images = floats()
    torch.testing.assert_close(grey(images), tvf.rgb_to_grayscale(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(solarise(images), tvf.solarize(images, 128 / 255), atol=1e-5, rtol=0)
    every_level = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    assert torch.equal((solarise(every_level / 255) * 255).round().to(torch.uint8), tvf.solarize(every_level, 128))


def blurred(images, sigmas, reach):
    return gaussian_blur(images, torch.arange(len(images)), blur_kernels(sigmas, reach))


@pytest.mark.parametrize("reach", [1, 6])
def test_blur_is_torchvisions_with_repeated_edges(way, reach):
    images, sigmas = floats(3), torch.tensor([0.1, 0.7, 2.0])
    wide = pad(images, (reach,) * 4, mode="replicate")
    size = 2 * reach + 1
    theirs = torch.stack(
        [tvf.gaussian_blur(w, [size, size], [s.item()] * 2) for w, s in zip(wide, sigmas, strict=True)]
    )
    ours = blurred(images, sigmas, reach)
    torch.testing.assert_close(ours, theirs[..., reach:-reach, reach:-reach], atol=1e-5, rtol=0)


def test_blur_reaches_beyond_a_tiny_image(way):
    flat = torch.full((1, 3, 2, 3), 0.25)
    torch.testing.assert_close(blurred(flat, torch.tensor([2.0]), 6), flat)


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_near_pillows_on_a_smooth_image(way, radius):
    coarse = numpy_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC)
    theirs = torch.from_numpy(np.array(image.filter(ImageFilter.GaussianBlur(radius)))).permute(2, 0, 1)
    ours = blurred(tvf.pil_to_tensor(image)[None].float(), torch.tensor([radius]), 6)[0]
    difference = (ours - theirs).abs()
    assert difference.max() < 3.5  # grey levels; Pillow's own is three box blurs
    assert difference.mean() < 1


def test_views_are_torchvisions_pipeline_with_the_same_draws(way):
    batch, draws = pixels(64), draw_parameters(generator(4), 64, BUSY)
    operations = [*TORCHVISION, tvf.adjust_hue]
    for i, view in enumerate(photometric(batch, draws)):
        image = batch[i].float() / 255
        image = tvf.hflip(image) if draws.flip[i] else image
        for operation in draws.order[i].tolist():
            image = operations[operation](image, draws.factors[i, operation].item())
        image = tvf.rgb_to_grayscale(image, 3) if draws.grayscale[i] else image
        image = blurred(image[None], draws.sigma[i : i + 1], draws.reach)[0] if draws.sigma[i] > 0 else image
        near_threshold = (image - 128 / 255).abs() < 1e-5
        image = tvf.solarize(image, 128 / 255) if draws.solarise[i] else image
        difference = (view - normalise(image[None])[0]).abs()
        assert difference[~near_threshold].max() < 1e-4  # after division by 0.22


def test_nothing_drawn_is_normalisation_alone():
    batch = pixels()
    assert torch.equal(photometric(batch, draw_parameters(generator(0), 6, NOTHING)), normalise(batch))


def test_views_repeat_and_leave_the_batch_alone():
    batch = pixels()
    before = batch.clone()
    views = [photometric(batch, draw_parameters(generator(1, step), 6, BUSY)) for step in (0, 0, 1)]
    assert torch.equal(batch, before)
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


def test_a_view_does_not_depend_on_the_rest_of_the_batch(monkeypatch):
    batch, draws = pixels(16), draw_parameters(generator(2), 16, BUSY)
    together = photometric(batch, draws)
    alone = torch.cat([photometric(batch[i : i + 1], draws[i : i + 1]) for i in range(16)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)
    monkeypatch.setattr("sept.data.augment._CHUNK_BYTES", 3 * batch[0].numel() * 4)
    torch.testing.assert_close(photometric(batch, draws), together, atol=1e-5, rtol=0)


def test_draws_for_a_smaller_batch_are_the_first_of_a_larger_one():
    small, large = (draw_parameters(generator(5), size, BUSY) for size in (7, 300))
    for name in ("flip", "factors", "order", "grayscale", "sigma", "solarise"):
        assert torch.equal(getattr(small, name), getattr(large, name)[:7])
    few, many = (random_boxes(generator(5), size, 20, 24, (0.1, 1.0), (3 / 4, 4 / 3)) for size in (7, 300))
    assert torch.equal(few, many[:7])


def test_autocast_changes_nothing():
    batch, draws = pixels(), draw_parameters(generator(1), 6, BUSY)
    boxes = random_boxes(generator(0), 6, 20, 24, (0.1, 1.0), (3 / 4, 4 / 3))
    expected = photometric(batch, draws), resize_by_products(batch, boxes, 16, "bilinear")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(photometric(batch, draws), expected[0])
        assert torch.equal(resize_by_products(batch, boxes, 16, "bilinear"), expected[1])


# MoBy's and iBOT's released pipelines: RandomHorizontalFlip(), RandomApply([ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
# RandomGrayscale(0.2), a Gaussian blur of radius 0.1 to 2 with probability 1 and 0.1, solarize at 128 with 0 and 0.2.
MOBY_SECOND = replace(MOBY_FIRST, blur=0.1, solarise=0.2)
PUBLISHED = {"flip": (0.5, 0.5), "jitter": (0.8, 0.8), "grayscale": (0.2, 0.2), "blur": (1, 0.1), "solarise": (0, 0.2)}
RANGES = [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]  # torchvision ColorJitter: 1 - b to 1 + b, -hue to hue
MANY = 20_000


def happened(draws):
    """What was done to each image, bool (B,) by the name of its probability."""
    return {
        "flip": draws.flip,
        "jitter": (draws.factors != torch.tensor([1.0, 1, 1, 0])).any(1),
        "grayscale": draws.grayscale,
        "blur": draws.sigma > 0,
        "solarise": draws.solarise,
    }


def is_uniform(values, low, high):
    assert low <= values.min()
    assert values.max() <= high + 1e-6
    return kstest(values.double().numpy(), "uniform", (low, high - low)).pvalue > 0.01


@pytest.mark.parametrize("name", list(PUBLISHED))
@pytest.mark.parametrize(("view", "policy"), [(0, MOBY_FIRST), (1, MOBY_SECOND)])
def test_each_step_happens_as_often_as_published(view, policy, name):
    share = happened(draw_parameters(generator(view), MANY, policy))[name].float().mean().item()
    assert share == pytest.approx(PUBLISHED[name][view], abs=0.012)


def test_probabilities_are_those_of_the_policy():
    found = happened(draw_parameters(generator(1), MANY, BUSY))
    for name, share in {"flip": 0.5, "jitter": 0.9, "grayscale": 0.3, "blur": 0.5, "solarise": 0.4}.items():
        assert found[name].float().mean().item() == pytest.approx(share, abs=0.012)


@pytest.mark.parametrize("operation", range(4), ids=["brightness", "contrast", "saturation", "hue"])
def test_each_factor_is_uniform_in_the_range_of_torchvisions_color_jitter(operation):
    draws = draw_parameters(generator(0), MANY, MOBY_FIRST)
    jitter = tv.ColorJitter(0.4, 0.4, 0.2, 0.1)
    assert [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue] == [pytest.approx(r) for r in RANGES]
    assert is_uniform(draws.factors[happened(draws)["jitter"], operation], *RANGES[operation])


def test_strong_factors_stop_at_zero_as_torchvisions_do():
    jitter = tv.ColorJitter(1.6, 1.6, 1.6, 0.5)
    policy = replace(MOBY_FIRST, jitter=1.0, brightness=1.6, contrast=1.6, saturation=1.6, hue=0.5)
    factors = draw_parameters(generator(0), MANY, policy).factors
    for column, (low, high) in enumerate([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]):
        assert is_uniform(factors[:, column], low, high)


def test_every_order_of_the_colour_operations_is_as_likely():
    _, counts = draw_parameters(generator(0), MANY, MOBY_FIRST).order.unique(dim=0, return_counts=True)
    assert len(counts) == 24
    assert chisquare(counts.numpy()).pvalue > 0.01


@pytest.mark.parametrize("policy", [MOBY_FIRST, MOBY_SECOND, replace(MOBY_FIRST, blur_radius=(0.5, 0.7))])
def test_the_blur_radius_is_uniform_in_its_range(policy):
    sigma = draw_parameters(generator(0), MANY, policy).sigma
    assert is_uniform(sigma[sigma > 0], *policy.blur_radius)


def test_what_is_drawn_for_one_step_says_nothing_of_another():
    draws = draw_parameters(generator(3), MANY, MOBY_SECOND)
    jittered_and_blurred = (draws.sigma > 0) & happened(draws)["jitter"]
    columns = [mask.double() for mask in happened(draws).values()]
    assert np.abs(np.corrcoef(torch.stack(columns)) - np.eye(5)).max() < 0.03
    numbers = torch.cat([draws.factors.T, draws.order.T[:3], draws.sigma[None], draws.flip[None]])
    found = np.corrcoef(numbers[:, jittered_and_blurred].double())
    orders = np.ix_(range(4, 7), range(4, 7))  # a permutation's places exclude each other
    found[orders] = np.eye(3)
    assert np.abs(found - np.eye(9)).max() < 0.1  # of some 1,600 images


def test_draws_differ_between_the_images_of_a_batch_and_between_batches():
    first, second = (draw_parameters(generator(seed), MANY, MOBY_FIRST) for seed in (0, 1))
    assert len(first.sigma.unique()) > 0.99 * MANY
    assert (first.sigma == second.sigma).float().mean() < 0.01


def published(policy):
    """The view up to its uint8 pixels, by torchvision on PIL images."""
    jitter = tv.ColorJitter(policy.brightness, policy.contrast, policy.saturation, policy.hue)
    blur = tv.Lambda(lambda image: image.filter(ImageFilter.GaussianBlur(random.uniform(*policy.blur_radius))))
    return tv.Compose(
        [
            tv.RandomHorizontalFlip(policy.flip),
            tv.RandomApply([jitter], policy.jitter),
            tv.RandomGrayscale(policy.grayscale),
            tv.RandomApply([blur], policy.blur),
            tv.RandomSolarize(128, policy.solarise),
            tv.ToTensor(),
            tv.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ]
    )


@pytest.mark.parametrize("policy", [MOBY_FIRST, MOBY_SECOND])
def test_views_are_distributed_as_the_published_pipelines(policy):
    """Of one image, the level of each channel, the contrast, the detail, the colourfulness, and which way it faces."""
    coarse, count = numpy_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8), 1500
    picture = Image.fromarray(coarse).resize((32, 24), Image.Resampling.BICUBIC)  # on noise, Pillow's blur is another
    image = tvf.pil_to_tensor(picture)
    ours = photometric(image.expand(count, -1, -1, -1), draw_parameters(generator(0), count, policy))
    pipeline = published(policy)
    with seeded(1):
        theirs = torch.stack([pipeline(picture) for _ in range(count)])
    for measure in (
        lambda v: v[:, 0].mean((1, 2)),
        lambda v: v[:, 1].mean((1, 2)),
        lambda v: v[:, 2].mean((1, 2)),
        lambda v: v.std((1, 2, 3)),
        lambda v: v.diff(dim=3).abs().mean((1, 2, 3)),
        lambda v: v.std(1).mean((1, 2)),
        lambda v: (v[..., :16] - v[..., 16:]).mean((1, 2, 3)),
    ):
        found, expected = measure(ours).numpy(), measure(theirs).numpy()
        assert wasserstein_distance(found, expected) < 0.08 * expected.std()  # as far as two samples of theirs are


def test_blur_radii_scale_with_the_side():
    assert scaled_blur_radius(0.1, 2.0, 224) == (0.1, 2.0)
    assert scaled_blur_radius(0.1, 2.0, 56) == pytest.approx((0.025, 0.5))


def test_boxes_are_distributed_as_torchvisions():
    scale, ratio, canvas = (0.08, 1.0), (3 / 4, 4 / 3), torch.empty(3, 60, 80)
    ours = random_boxes(generator(0), 4000, 60, 80, scale, ratio).numpy()
    with seeded(2):
        theirs = np.array([tv.RandomResizedCrop.get_params(canvas, scale, ratio) for _ in range(4000)])
    quantiles = np.linspace(0, 1, 21)[1:-1]
    for measure in (lambda b: b[:, 2] * b[:, 3] / 4800, lambda b: np.log(b[:, 3] / b[:, 2]), lambda b: b[:, 0] / 60):
        np.testing.assert_allclose(
            np.quantile(measure(ours), quantiles), np.quantile(measure(theirs), quantiles), atol=0.04
        )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [16, 48])  # crops are shrunk and enlarged, only enlarged
@pytest.mark.parametrize("way", [crop_resize_batch, resize_by_products])
def test_batched_crops_are_those_of_single_images(way, side, interpolation):
    images = pixels(12, 40, 33)
    boxes = random_boxes(generator(3), 12, 40, 33, (0.02, 1.0), (1 / 2, 2))
    ours = way(images, boxes, side, interpolation)
    assert ours.dtype == torch.uint8
    for image, box, view in zip(images, boxes.tolist(), ours, strict=True):
        theirs = crop_resize(image.permute(1, 2, 0).numpy(), tuple(box), side, interpolation)
        assert (view.int() - theirs.int()).abs().max() <= 1.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["bilinear", "bicubic"]), st.sampled_from([8, 40]))
def test_nothing_outside_the_box_bleeds_in(seed, interpolation, side):
    box = random_boxes(generator(seed), 1, 20, 24, (0.02, 0.5), (1 / 2, 2))
    top, left, height, width = box[0].tolist()
    images = torch.full((1, 3, 20, 24), 255, dtype=torch.uint8)
    images[..., top : top + height, left : left + width] = 7
    for way in (crop_resize_batch, resize_by_products):
        assert (way(images, box, side, interpolation) == 7).all()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_views():
    batch, draws = pixels(32), draw_parameters(generator(4), 32, BUSY)
    boxes = random_boxes(generator(3), 32, 20, 24, (0.1, 1.0), (3 / 4, 4 / 3))
    crops = crop_resize_batch(batch.cuda(), boxes, 16, "bicubic").cpu()
    assert (crops.int() - crop_resize_batch(batch, boxes, 16, "bicubic").int()).abs().max() <= 1
    difference = (photometric(batch.cuda(), draws).cpu() - photometric(batch, draws)).abs()
    assert (difference < 1e-4).float().mean() > 0.999  # a value at the solarise threshold may fall on either side
