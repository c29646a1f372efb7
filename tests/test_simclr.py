"""SimCLR: its loss against a loop, and a step against one worked out in float64."""

import copy
import math

import micro
import pytest
import torch
import torch.nn.functional as F
from micro import SIDE, SWIN, cropped, curve, recorded, run, subset
from test_lars import slow_lars
from torch import nn

from sept.data.rng import generator
from sept.methods.learner import mlp
from sept.methods.recipe import Length
from sept.methods.simclr.learner import SimCLR, nt_xent

TEMPERATURE = 0.1


def randn(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed, *shape), dtype=torch.float64)


def slow_nt_xent(first, second, temperature=TEMPERATURE):
    """The loss of each view in turn, against every other view by itself."""
    views = [*first, *second]
    total = 0.0
    for i, view in enumerate(views):
        cosines = {j: (view @ each) / view.norm() / each.norm() for j, each in enumerate(views) if j != i}
        others = torch.stack([cosine / temperature for cosine in cosines.values()])
        total = total + torch.logsumexp(others, 0) - cosines[(i + len(first)) % len(views)] / temperature
    return total / len(views)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_the_loss_is_that_of_a_loop_over_views(temperature):
    first, second = randn(7, 5, seed=0), randn(7, 5, seed=1)
    assert nt_xent(first, second, temperature).item() == pytest.approx(
        slow_nt_xent(first, second, temperature).item(), rel=1e-12
    )


def test_the_loss_is_the_mean_of_both_directions_and_does_not_tell_them_apart():
    first, second = randn(6, 4, seed=0), randn(6, 4, seed=1)
    assert nt_xent(first, second, 0.1).item() == pytest.approx(nt_xent(second, first, 0.1).item(), rel=1e-12)
    assert nt_xent(first, 3 * second, 0.1).item() == pytest.approx(nt_xent(first, second, 0.1).item(), rel=1e-12)


@pytest.mark.parametrize("batch", [8, 64])
def test_of_random_directions_the_loss_is_the_logarithm_of_the_other_views(batch):
    first, second = randn(batch, 8192, seed=0), randn(batch, 8192, seed=1)
    assert nt_xent(first, second, TEMPERATURE).item() == pytest.approx(math.log(2 * batch - 1), rel=0.02)


def test_the_loss_agrees_with_lightlys():
    loss = pytest.importorskip("lightly.loss")
    first, second = randn(9, 6, seed=0).float(), randn(9, 6, seed=1).float()
    theirs = loss.NTXentLoss(temperature=TEMPERATURE)(first, second).item()
    assert nt_xent(first, second, TEMPERATURE).item() == pytest.approx(theirs, rel=1e-5)


def test_the_official_head_has_no_biases_and_a_last_norm_with_scale_and_no_shift():
    head = mlp([6, 6, 6, 4], bias=False, last_norm="scale")
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(module) for module in head] == [*kinds, *kinds, nn.Linear, nn.BatchNorm1d]
    assert [module.bias for module in head if isinstance(module, nn.Linear)] == [None] * 3
    assert head[-1].weight.requires_grad
    assert not head[-1].bias.requires_grad
    assert (head[-1].bias == 0).all()
    bare = mlp([6, 4], bias=False, last_norm="plain")
    assert [type(module) for module in bare] == [nn.Linear, nn.BatchNorm1d]
    assert not bare[1].affine


@pytest.fixture(scope="module", params=[SWIN, micro.RESNET], ids=["swin", "resnet"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simclr")
    recipe = micro.simclr(optimiser="lars", lr=2.0, clip=None, weight_decay=0.01)
    learner = recorded(SimCLR)(recipe, request.param, seed=0, length=Length(4, 2))
    return run(learner, cropped(learner, subset(folder / "images", 32), 16), folder)


@pytest.mark.parametrize("step", [0, 3])
def test_the_loss_of_a_step_is_that_of_both_views_in_one_batch(trained, step):
    net = copy.deepcopy(trained).double()
    net.load_state_dict(trained.before[step])
    net.train()
    views = [view.double() for view in trained.views(trained.batches[step], step)]
    first, second = net.projector(net.backbone(torch.cat(views))).chunk(2)
    assert trained.losses[step] == pytest.approx(slow_nt_xent(first, second).item(), rel=1e-4)


def test_the_first_step_is_larss_along_the_gradients_of_the_loop(trained):
    net = copy.deepcopy(trained).double()
    net.load_state_dict(trained.before[0])
    net.train().zero_grad()
    views = [view.double() for view in trained.views(trained.batches[0], 0)]
    slow_nt_xent(*net.projector(net.backbone(torch.cat(views))).chunk(2)).backward()
    after, lr = trained.before[1], trained.lr(0)
    assert trained.rates[0] == [lr] * 2
    for name, p in net.named_parameters():
        if not p.requires_grad:
            assert torch.equal(after[name], trained.before[0][name]), name
            continue
        numbers = p.detach().flatten().tolist(), [p.grad.flatten().tolist()]
        moved = slow_lars(*numbers, [lr], 0.01 if p.ndim > 1 else 0.0, p.ndim > 1)
        step = torch.tensor(moved, dtype=torch.float64) - p.detach().flatten()
        found = after[name].double().flatten() - p.detach().flatten()
        assert (found - step).norm() <= 2e-3 * step.norm() + 2e-5, name


def test_it_learns_a_few_images(tmp_path):
    mild = {"crop_scale": [0.6, 1.0], "jitter": 0.2, "grayscale": 0.0, "blur": [0.0, 0.0], "solarise": [0.0, 0.0]}
    learner = recorded(SimCLR)(micro.simclr(lr=3e-3, side=SIDE, **mild), SWIN, seed=0, length=Length(40, 1))
    run(learner, cropped(learner, subset(tmp_path / "images", 16), 16), tmp_path)
    assert sum(learner.losses[-5:]) / 5 < 0.5 * math.log(31)
    assert curve(tmp_path, "loss_over_chance")[-1] < 0.6
    assert curve(tmp_path, "feature_std")[-1] > 0.1


def test_views_of_one_image_are_not_each_others_negatives():
    """With two images whose views agree perfectly and are opposite, only the other image is left to confuse."""
    z = F.normalize(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), dim=1)
    expected = math.log(1 + 2 * math.exp(-2 / TEMPERATURE))
    assert nt_xent(z, z, TEMPERATURE).item() == pytest.approx(expected, abs=1e-7)
