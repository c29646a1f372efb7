"""LARS against its rule written out number by number in float64, and its state through a checkpoint."""

import math
import signal
from functools import partial

import micro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_fit import EPOCHS, IMAGES, PER_EPOCH, assert_same, before, kill, runtime, train_learner
from torch import nn

from sept.data.rng import generator
from sept.errors import Interrupted
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.training.optim import Lars

MOMENTUM, TRUST = 0.9, 1e-3
SHAPES = [(5, 3), (4, 2, 3, 3), (6,), ()]  # of a matrix, a convolution, a bias and a scale


def length(values):
    return math.sqrt(sum(value * value for value in values))


def slow_lars(weight, gradients, rates, decay, many):
    """The weight after these steps, as a list of numbers. many: whether the tensor has more than one dimension."""
    p, u = list(weight), [0.0] * len(weight)
    for gradient, lr in zip(gradients, rates, strict=True):
        g = list(gradient)
        if many:
            g = [gi + decay * pi for gi, pi in zip(g, p, strict=True)]
            factor = TRUST * length(p) / length(g) if length(p) > 0 and length(g) > 0 else 1.0
            g = [factor * gi for gi in g]
        u = [MOMENTUM * ui + gi for ui, gi in zip(u, g, strict=True)]
        p = [pi - lr * ui for pi, ui in zip(p, u, strict=True)]
    return p


def randn(*shape, seed):
    return torch.randn(shape, generator=generator(seed, *shape), dtype=torch.float64)


def stepped(weights, gradients, rates, decay, dtype=torch.float64):
    """The weights after the optimiser's steps: those of even place in a decayed group, the others in a plain one."""
    parameters = [nn.Parameter(weight.clone().to(dtype)) for weight in weights]
    groups = [{"params": parameters[::2], "weight_decay": decay}, {"params": parameters[1::2], "weight_decay": 0.0}]
    optimizer = Lars(groups, lr=1.0)
    for turn, lr in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for parameter, each in zip(parameters, gradients, strict=True):
            parameter.grad = each[turn].to(dtype)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("decay", [0.0, 1e-4, 0.3])
def test_steps_equal_the_rule_written_out(decay, dtype, within):
    rates = [0.3, 4.8, 0.0, 1.2]
    weights = [randn(*shape, seed=i) for i, shape in enumerate(SHAPES) for _ in range(2)]
    gradients = [[randn(*w.shape, seed=10 + turn) for turn in range(len(rates))] for w in weights]
    found = stepped(weights, gradients, rates, decay, dtype)
    for place, (weight, each) in enumerate(zip(weights, gradients, strict=True)):
        its = decay if place % 2 == 0 else 0.0
        numbers = [g.flatten().tolist() for g in each]
        expected = slow_lars(weight.flatten().tolist(), numbers, rates, its, weight.ndim > 1)
        wanted = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(found[place].double().flatten(), wanted, rtol=within, atol=within)
    assert not torch.equal(found[0], weights[0].to(dtype))


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("weight", "gradient"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_without_a_norm_the_factor_is_one(weight, gradient, decay):
    w, g = torch.full((2, 2), weight), torch.full((2, 2), gradient)
    [found] = stepped([w], [[g]], [0.5], decay)
    expected = slow_lars([weight] * 4, [[gradient] * 4], [0.5], decay, many=True)
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-12)
    assert torch.isfinite(found).all()


def test_of_one_dimension_it_is_sgd_with_momentum():
    weight, gradients = randn(7, seed=0), [randn(7, seed=1 + turn) for turn in range(5)]
    [found] = stepped([weight], [gradients], [0.2] * 5, decay=0.5)
    parameter = nn.Parameter(weight.clone())
    sgd = torch.optim.SGD([parameter], lr=0.2, momentum=MOMENTUM)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        sgd.step()
    torch.testing.assert_close(found, parameter.detach(), rtol=1e-12, atol=1e-12)


def test_what_has_no_gradient_stays_and_gradients_are_left_as_they_are():
    moved, still = (nn.Parameter(randn(3, 3, seed=i)) for i in range(2))
    kept, gradient = still.detach().clone(), randn(3, 3, seed=2)
    moved.grad = gradient.clone()
    optimizer = Lars([{"params": [still, moved], "weight_decay": 0.1}], lr=1.0)
    optimizer.step()
    assert torch.equal(still, kept)
    assert still not in optimizer.state
    assert torch.equal(moved.grad, gradient)


@given(
    st.integers(0, 2**16),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.floats(1e-3, 100),
    st.floats(1e-6, 1e6),
)
def test_a_first_step_is_as_long_as_the_rate_says_whatever_the_gradients_size(seed, shape, lr, size):
    weight, gradient = randn(*shape, seed=seed), size * randn(*shape, seed=seed + 1)
    [found] = stepped([weight], [[gradient]], [lr], decay=0.0)
    moved = found - weight
    assert moved.norm().item() == pytest.approx(lr * TRUST * weight.norm().item(), rel=1e-6)
    torch.testing.assert_close(moved / moved.norm(), -gradient / gradient.norm(), rtol=1e-5, atol=1e-7)


def by_lars() -> MoBy:
    recipe = micro.moby(batch_size=8, queue=16, optimiser="lars", lr=0.5, clip=None, weight_decay=1e-4)
    return MoBy(recipe, micro.SWIN, seed=3, length=Length(EPOCHS * PER_EPOCH, PER_EPOCH))


def test_a_training_that_is_stopped_and_resumed_ends_where_another_does(tmp_path):
    micro.subset(tmp_path, IMAGES)
    folders = [tmp_path / "stopped", tmp_path / "whole"]
    for folder in folders:
        folder.mkdir()
    with pytest.raises(Interrupted):
        train_learner(
            folders[0], runtime(), by_lars, partial(before, "training_step", 2, partial(kill, signal.SIGTERM))
        )
    ends = [train_learner(folder, runtime(), by_lars).state_dict() for folder in folders]
    assert_same(*ends)
    start = by_lars().state_dict()
    assert not torch.equal(ends[0]["predictor.0.weight"], start["predictor.0.weight"])
