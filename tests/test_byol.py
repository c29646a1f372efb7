"""BYOL: its loss against a loop, a step and the target's move against ones worked out in float64."""

import copy
import math

import micro
import pytest
import torch
from micro import SWIN, cropped, curve, recorded, run, subset
from test_lars import slow_lars
from test_learners import close, moving_average, part, states
from test_simclr import randn
from timm.layers import DropPath

from sept.methods.byol.learner import BYOL, regression
from sept.methods.recipe import Length

STEPS, PER_EPOCH, MOMENTUM = 4, 2, 0.7


def slow_regression(prediction, target):
    total = 0.0
    for p, t in zip(prediction, target, strict=True):
        total = total + (p / p.norm() - t / t.norm()).square().sum()
    return total / len(prediction)


def test_the_loss_is_the_squared_distance_of_unit_vectors_and_its_target_gets_no_gradient():
    prediction, target = randn(7, 5, seed=0).requires_grad_(), randn(7, 5, seed=1).requires_grad_()
    loss = regression(prediction, target)
    assert loss.item() == pytest.approx(slow_regression(prediction, target).item(), rel=1e-12)
    loss.backward()
    assert target.grad is None
    assert prediction.grad.abs().sum() > 0


def test_the_loss_agrees_with_lightlys():
    lightly = pytest.importorskip("lightly.loss")
    first, second = randn(9, 6, seed=0).float(), randn(9, 6, seed=1).float()
    theirs = 2 + 2 * lightly.NegativeCosineSimilarity()(first, second).item()
    assert regression(first, second).item() == pytest.approx(theirs, rel=1e-5)


def made(backbone=SWIN, steps=STEPS, **changes):
    recipe = micro.byol(**{"momentum": MOMENTUM, **changes})
    return recorded(BYOL)(recipe, backbone, seed=0, length=Length(steps, PER_EPOCH))


def test_the_loss_starts_at_four(tmp_path):
    learner = made(projector_layers=3, last_norm="plain", out_dim=1024, steps=1)
    run(learner, cropped(learner, subset(tmp_path / "images", 16), 16), tmp_path)
    assert learner.losses[0] == pytest.approx(4.0, rel=0.02)


@pytest.fixture(scope="module", params=[SWIN, micro.RESNET], ids=["swin", "resnet"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("byol")
    learner = made(request.param, optimiser="lars", lr=2.0, clip=None, weight_decay=0.01)
    return run(learner, cropped(learner, subset(folder / "images", 32), 16), folder)


def momentum(step):
    return 1 - (1 - MOMENTUM) * (1 + math.cos(math.pi * step / STEPS)) / 2


def slow_loss(learner, step):
    """The network before a step in float64, and the loss of the step: view by view, in the released code's order."""
    net = copy.deepcopy(learner).double()
    net.load_state_dict(learner.before[step])
    net.train().zero_grad()
    views = [view.double() for view in learner.views(learner.batches[step], step)]
    predictions = [net.predictor(net.online["projector"](net.online["encoder"](view))) for view in views]
    targets = [net.target["projector"](net.target["encoder"](view)).detach() for view in views]
    return net, slow_regression(predictions[0], targets[1]) + slow_regression(predictions[1], targets[0])


@pytest.mark.parametrize("step", range(STEPS))
def test_the_loss_of_a_step_is_that_of_each_view_as_a_batch_of_its_own(trained, step):
    _, loss = slow_loss(trained, step)
    assert trained.losses[step] == pytest.approx(loss.item(), rel=1e-4)


def test_the_first_step_is_larss_along_the_gradients_of_the_loop(trained):
    net, loss = slow_loss(trained, 0)
    loss.backward()
    after, lr = trained.before[1], trained.lr(0)
    assert trained.rates[0] == [lr] * 2
    for name, p in net.named_parameters():
        if name.startswith("target."):
            assert p.grad is None, name
            continue
        numbers = p.detach().flatten().tolist(), [p.grad.flatten().tolist()]
        moved = slow_lars(*numbers, [lr], 0.01 if p.ndim > 1 else 0.0, p.ndim > 1)
        step = torch.tensor(moved, dtype=torch.float64) - p.detach().flatten()
        found = after[name].double().flatten() - p.detach().flatten()
        assert (found - step).norm() <= 2e-3 * step.norm() + 1e-6, name


def test_the_target_moves_towards_the_weights_after_the_optimisers_step(trained):
    seen = states(trained)
    for step in range(STEPS):
        target, online = part(seen[step], "target."), part(seen[step + 1], "online.")
        expected = moving_average(target, online, momentum(step))
        close(part(seen[step + 1], "target."), expected, rtol=1e-5, atol=1e-6)
        assert any(not torch.equal(online[n], part(seen[step], "online.")[n]) for n in expected)


def test_the_target_starts_equal_and_collects_its_own_batchnorm_statistics(trained):
    first, last = trained.before[0], trained.state_dict()
    online, target = part(first, "online."), part(first, "target.")
    assert all(torch.equal(online[name], target[name]) for name in online)
    norms = [name for name in target if name.endswith("running_mean")]
    assert norms
    for name in norms:
        assert not torch.equal(last[f"target.{name}"], first[f"target.{name}"])
        assert not torch.equal(last[f"target.{name}"], last[f"online.{name}"])
        counted = name.replace("running_mean", "num_batches_tracked")
        assert last[f"target.{counted}"] == 2 * STEPS  # each view for itself, in the encoder too


def test_the_target_has_no_drop_path_and_the_online_encoder_has():
    learner = made(drop_path_rate=0.5)
    online, target = (
        [module.drop_prob for module in branch.modules() if isinstance(module, DropPath)]
        for branch in (learner.online, learner.target)
    )
    assert max(online) == 0.5
    assert set(target) == {0.0}


def test_momentum_is_fitted_to_the_steps_and_rises_to_one():
    recipe = micro.byol(momentum=None).fitted(1000, 600)
    assert recipe.momentum == pytest.approx(0.9)
    learner = BYOL(recipe, SWIN, seed=0, length=Length(600, 60))
    assert learner.momentum(0) == pytest.approx(0.9)
    assert learner.momentum(300) == pytest.approx(0.95)
    assert learner.momentum(600) == 1
    assert micro.byol(momentum=0.996).fitted(1000, 600).momentum == 0.996


def test_it_learns_a_few_images_and_does_not_collapse(tmp_path):
    mild = {"crop_scale": [0.6, 1.0], "jitter": 0.2, "grayscale": 0.0, "blur": [0.0, 0.0], "solarise": [0.0, 0.0]}
    learner = made(steps=40, lr=3e-3, momentum=0.9, **mild)
    run(learner, cropped(learner, subset(tmp_path / "images", 16), 16), tmp_path)
    assert sum(learner.losses[-5:]) / 5 < 0.5 * 4
    assert curve(tmp_path, "effective_rank")[-1] > 2
