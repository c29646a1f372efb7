"""Two ways of augmenting, one for CPUs and one for devices: what they give, and what the second costs."""

from contextlib import contextmanager
from dataclasses import replace

import plain_augment
import pytest
import torch
from test_augment import BUSY, MOBY_FIRST, NOTHING, pixels, way  # noqa: F401

from benchmarks.augmentation import counted, ibot, moby
from sept.data import augment, transforms
from sept.data.augment import draw_parameters, photometric, photometric_together
from sept.data.colour import compiled
from sept.data.rng import generator
from sept.data.transforms import normalise


def as_on_a_device(monkeypatch):
    """The way of devices from here on, on numbers of the CPU."""
    for module in ("colour", "augment"):
        monkeypatch.setattr(f"sept.data.{module}.on_cpu", lambda images: False)


@contextmanager
def at_most(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


STRONG = replace(BUSY, jitter=1.0, brightness=1.6, contrast=1.6, saturation=1.6, hue=0.5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "policy", [MOBY_FIRST, BUSY, STRONG, replace(BUSY, hue=0.0), replace(BUSY, jitter=0.25), NOTHING]
)
def test_views_on_a_cpu_keep_their_bits(policy, threads, monkeypatch):
    monkeypatch.setattr("sept.data.augment._CHUNK_BYTES", 2**30)
    with at_most(threads):
        for seed, (count, height, width) in enumerate([(3, 20, 24), (3, 200, 180), (40, 20, 24), (9, 33, 31)]):
            batch, draws = pixels(count, height, width), draw_parameters(generator(seed), count, policy)
            assert torch.equal(photometric(batch, draws), plain_augment.views(batch, draws))


def test_contrast_keeps_its_bits_where_one_image_alone_has_it():
    """Two threads share out the mean of a single image, and find another one."""
    batch, draws = pixels(12, 200, 180), draw_parameters(generator(0), 12, NOTHING)
    draws.factors[::3, 1] = 0.7
    with at_most(2):
        for start in range(0, 12, 3):
            rows = slice(start, start + 3)
            assert torch.equal(photometric(batch[rows], draws[rows]), plain_augment.views(batch[rows], draws[rows]))


@pytest.mark.parametrize("policy", [MOBY_FIRST, BUSY, STRONG, replace(BUSY, hue=0.0), NOTHING])
def test_the_way_of_devices_gives_the_same_views(policy, monkeypatch):
    """On numbers of the CPU; flips, order and places exactly, so that what differs is rounding and solarisation."""
    batch, draws = pixels(64), draw_parameters(generator(4), 64, policy)
    expected = photometric(batch, draws)
    as_on_a_device(monkeypatch)
    difference = (photometric(batch, draws) - expected).abs()
    assert (difference < 1e-4).float().mean() > 0.9999


def test_batches_of_one_size_are_coloured_together_on_devices(monkeypatch):
    batches = [pixels(5), pixels(5, 12, 16), pixels(5).flip(0), pixels(5, 12, 16).flip(0)]
    draws = [draw_parameters(generator(4, i), 5, BUSY) for i in range(4)]
    expected, sizes = photometric_together(batches, draws), []
    as_on_a_device(monkeypatch)
    whole = augment.photometric
    monkeypatch.setattr(augment, "photometric", lambda batch, *how: sizes.append(len(batch)) or whole(batch, *how))
    for view, right in zip(photometric_together(batches, draws), expected, strict=True):
        assert view.shape == right.shape
        assert ((view - right).abs() < 1e-4).float().mean() > 0.999
    assert sizes == [10, 10]


@pytest.mark.slow
def test_compiled_operations_give_the_same_views(way):  # noqa: F811
    """Of batches of several sizes, whose rows are never shared out in the same way."""
    for seed, policy in enumerate([MOBY_FIRST, BUSY, STRONG, BUSY]):
        batch, draws = pixels(24 + seed), draw_parameters(generator(seed), 24 + seed, policy)
        difference = (photometric(batch, draws, compiled()) - photometric(batch, draws)).abs()
        assert (difference < 1e-4).float().mean() > 0.9999


@pytest.mark.parametrize(("views", "megabytes", "operators", "copies"), [(moby, 97, 220, 1), (ibot, 184, 420, 2)])
def test_devices_move_less_than_half_of_the_memory_they_did_and_wait_for_no_copy(views, megabytes, operators, copies):
    """193.9 and 366.5 MB an image, 476 and 2,826 operators, 33 and 193 copies before; none reads a device's values."""
    found = counted(views(), 64)
    assert found.bytes / 64 / 1e6 < megabytes
    assert found.operators < operators
    assert (found.sent, found.waits) == (copies, 0)


def test_what_is_kept_for_normalisation_can_be_trained_with():
    weight = torch.ones(1, requires_grad=True)
    transforms._on_device.cache_clear()
    with torch.inference_mode():
        normalise(pixels())
    (normalise(pixels()) * weight).sum().backward()
    assert weight.grad is not None
