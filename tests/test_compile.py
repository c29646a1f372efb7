"""Encoders and colours by torch.compile train as those that are not."""

from dataclasses import replace

import micro
import pytest
import torch
from test_augment import BUSY, pixels
from test_chunks import BATCH, ibot, moby

from sept.data.augment import draw_parameters, photometric
from sept.data.colour import compiled
from sept.data.rng import generator

pytestmark = pytest.mark.slow  # a compiler of C++ at work


def trained(make, folder, chunk, compiled):
    packed = micro.subset(folder / "images", 24)
    learner = make()
    runtime = replace(micro.MACHINE, compile=compiled, chunk=chunk)
    micro.run(learner, micro.cropped(learner, packed, BATCH), folder / f"{chunk}-{compiled}", runtime)
    return learner.state_dict()


@pytest.mark.parametrize(("make", "chunk"), [(moby, None), (moby, 3), (ibot, None)])
def test_a_compiled_training_ends_where_one_that_is_not_ends(make, chunk, tmp_path):
    plain, found = (trained(make, tmp_path, chunk, compiled) for compiled in (False, True))
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3, msg=lambda text, n=name: f"{n}: {text}")


def test_compiled_colours_are_those_that_are_not():
    batch, draws = pixels(32), draw_parameters(generator(4), 32, BUSY)
    plain, found = photometric(batch, draws), photometric(batch, draws, compiled())
    assert ((found - plain).abs() < 1e-4).float().mean() > 0.999
