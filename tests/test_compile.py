"""Encoders by torch.compile train as those that are not, and the host gives the device less to do."""

from dataclasses import replace

import micro
import pytest
import torch
from test_chunks import BATCH, ibot, moby

pytestmark = pytest.mark.slow  # a compiler of C++ at work

LAUNCHES_AT_MOST = 0.5


def trained(make, folder, chunk, compiled):
    packed = micro.subset(folder / "images", 24)
    learner = make()
    machine = replace(micro.MACHINE, compile=compiled, chunk=chunk)
    micro.run(learner, micro.cropped(learner, packed, BATCH), folder / f"{chunk}-{compiled}", machine)
    return learner.state_dict()


@pytest.mark.parametrize(("make", "chunk"), [(moby, None), (moby, 3), (ibot, None)])
def test_a_compiled_training_ends_where_one_that_is_not_ends(make, chunk, tmp_path):
    plain, found = (trained(make, tmp_path, chunk, compiled) for compiled in (False, True))
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3, msg=lambda text, n=name: f"{n}: {text}")
