"""Schedules against the closed forms and timm's scheduler; parameter groups against the published recipes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from micro import SWIN, VIT
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

from sept.backbones.networks import build, layer_ids
from sept.data.rng import generator
from sept.methods.learner import mlp
from sept.training.optim import (
    cosine,
    cosines,
    decay_groups,
    ibot_lr,
    layer_decay_groups,
    linear_epochs,
    undecayed,
    warmup_constant,
    warmup_cosine,
    warmup_step,
)

EXACT = 1e-10  # schedules are float64


def timm_rates(steps, warmup, peak, first, last):
    """Rates that the published loops run at: the scheduler is told the step's number after the step."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=peak)
    scheduler = CosineLRScheduler(
        optimizer, t_initial=steps, lr_min=last, warmup_lr_init=first, warmup_t=warmup, t_in_epochs=False
    )
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step_update(step)
    return rates


def test_cosines_keep_their_precision_under_autocast():
    first, second = (torch.randn(9, 64, generator=generator(seed)) for seed in (0, 1))
    expected = F.normalize(first.double(), dim=1) @ F.normalize(second.double(), dim=1).T
    with torch.autocast("cpu", torch.bfloat16):
        found = cosines(first, second)
        assert (first @ second.T).dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("steps", "warmup"), [(60, 10), (60, 0), (7, 3), (1, 1)])
def test_warmup_cosine_runs_at_the_rates_of_the_published_loops(steps, warmup):
    ours = [warmup_cosine(step, steps, warmup, 1e-3, 5e-7, 5e-6) for step in range(steps)]
    np.testing.assert_allclose(ours, timm_rates(steps, warmup, 1e-3, 5e-7, 5e-6), rtol=1e-12)


def test_moby_warms_up_from_the_first_rate_twice_and_dips_where_the_cosine_takes_over():
    steps, warmup = 300 * 195, 5 * 195  # 100k images in batches of 512

    def rate(step):
        return warmup_cosine(step, steps, warmup, 1e-3, 5e-7, 5e-6)

    assert rate(0) == rate(1) == 5e-7
    assert rate(2) == pytest.approx(5e-7 + (1e-3 - 5e-7) / warmup, rel=EXACT)
    highest = max(range(steps), key=rate)
    assert highest == warmup + 1
    assert rate(highest) == pytest.approx(5e-6 + (1e-3 - 5e-6) * (1 + math.cos(math.pi / 60)) / 2, rel=EXACT)
    assert rate(highest) == pytest.approx(9.993e-4, abs=5e-8)  # as published, rounded
    assert rate(warmup) == pytest.approx(1e-3 - (1e-3 - 5e-7) / warmup, rel=EXACT)
    assert rate(steps + 1) == pytest.approx(5e-6, rel=EXACT)


def test_warmup_constant_stays_at_the_peak():
    rates = [warmup_constant(step, 50, 10, 1e-3, 1e-5, 5e-6) for step in range(50)]
    assert rates[11:] == [1e-3] * 39
    assert rates[:11] == [warmup_cosine(step, 50, 10, 1e-3, 1e-5, 5e-6) for step in range(11)]


def test_warmup_step_drops_after_seven_eighths():
    rates = [warmup_step(step, 80, 10, 1e-3, 1e-5, 1e-4) for step in range(80)]
    assert rates[:71] == [warmup_constant(step, 80, 10, 1e-3, 1e-5, 1e-4) for step in range(71)]
    assert rates[70] == 1e-3
    assert rates[71:] == [1e-4] * 9  # the published scheduler is told of step 70 after it


@pytest.mark.parametrize(("steps", "warmup"), [(80, 10), (80, 1), (80, 0), (9, 9)])
def test_ibot_lr_is_a_line_from_zero_to_the_peak_and_a_cosine_over_what_is_left(steps, warmup):
    rest = np.arange(steps - warmup)
    reference = np.concatenate(
        [
            np.linspace(0, 2e-3, warmup),
            1e-6 + 0.5 * (2e-3 - 1e-6) * (1 + np.cos(np.pi * rest / max(len(rest), 1))),
        ]
    )
    ours = [ibot_lr(step, steps, warmup, 2e-3, 1e-6) for step in range(steps)]
    np.testing.assert_allclose(ours, reference, rtol=1e-12, atol=1e-18)


def test_teacher_temperature_climbs_by_epoch_and_stays():
    reference = np.concatenate([np.linspace(0.04, 0.07, 30), np.full(20, 0.07)])
    np.testing.assert_allclose([linear_epochs(epoch, 30, 0.04, 0.07) for epoch in range(50)], reference, rtol=1e-12)
    assert linear_epochs(0, 0, 0.04, 0.07) == 0.07
    assert linear_epochs(0, 1, 0.04, 0.07) == 0.04


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0, 1))
def test_cosine_goes_from_start_to_end_without_leaving_them(steps, start, end):
    low, high = min(start, end) - 1e-9, max(start, end) + 1e-9
    values = [cosine(step, steps, start, end) for step in (0, steps // 3, steps // 2, steps, steps + 7)]
    assert all(low <= value <= high for value in values)
    assert values[0] == pytest.approx(start, rel=EXACT, abs=EXACT)
    assert values[-2] == values[-1] == pytest.approx(end, rel=EXACT, abs=EXACT)


@pytest.mark.parametrize(("start", "end"), [(0.996, 1.0), (0.04, 0.4)])
def test_ibot_momentum_and_weight_decay_are_half_a_cosine(start, end):
    steps = 800 * 1251  # ImageNet-1k in batches of 1024
    for step in (0, 1, 12_510, steps // 3, steps - 1, steps):
        reference = end - (end - start) * (1 + math.cos(math.pi * step / steps)) / 2
        assert cosine(step, steps, start, end) == pytest.approx(reference, rel=EXACT)


def test_moby_momentum_has_the_published_closed_form():
    for step in (0, 1, 100, 58_499, 58_500):
        reference = 1 - 0.01 * (math.cos(math.pi * step / 58_500) + 1) / 2
        assert cosine(step, 58_500, 0.99, 1.0) == pytest.approx(reference, abs=1e-15)


def online(name):
    with torch.device("meta"):
        encoder = build(name, {})
        return nn.ModuleDict(
            {"encoder": encoder, "projector": mlp([768, 4096, 256]), "predictor": mlp([256, 4096, 256])}
        )


def test_moby_decays_68_tensors_of_swin_tiny_and_leaves_115():
    model = online("swin_tiny_patch4_window7_224")
    decayed, plain = decay_groups(model.named_parameters(), 0.05)
    assert (len(decayed["params"]), len(plain["params"])) == (68, 115)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert decayed["scale"] == plain["scale"] == 1.0
    tables = {id(p) for n, p in model.named_parameters() if n.endswith("relative_position_bias_table")}
    assert len(tables) == 12
    assert tables <= {id(p) for p in decayed["params"]}
    assert all(p.ndim > 1 for p in decayed["params"])


def test_frozen_parameters_are_in_no_group():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4).requires_grad_(False))
    decayed, plain = decay_groups(model.named_parameters(), 0.1)
    assert [id(p) for p in decayed["params"] + plain["params"]] == [id(model[0].weight), id(model[0].bias)]


def test_biases_and_one_dimensional_parameters_are_undecayed():
    assert undecayed("norm.weight", torch.zeros(3))
    assert undecayed("logit_scale", torch.zeros(()))
    assert undecayed("odd.bias", torch.zeros(2, 2))
    assert not undecayed("fc.weight", torch.zeros(2, 2))
    assert not undecayed("cls_token", torch.zeros(1, 1, 2))


def full_swin(classes=10):
    with torch.device("meta"):
        return build("swin_tiny_patch4_window7_224", {}, num_classes=classes)


def by_name(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group for group in groups for p in group["params"]}


def test_layer_decay_of_swin_tiny_has_28_groups_with_each_parameter_once():
    model = full_swin()
    ids, layers = layer_ids(model)
    groups = layer_decay_groups(model, ids.__getitem__, layers, 0.05, 0.9)
    assert len(groups) == 28
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in model.parameters())
    found = by_name(model, groups)
    assert found["patch_embed.proj.weight"]["scale"] == pytest.approx(0.9**13, rel=EXACT)
    assert found["head.fc.weight"]["scale"] == found["norm.weight"]["scale"] == 1.0
    assert found["layers.2.blocks.3.mlp.fc1.weight"]["scale"] == pytest.approx(0.9 ** (13 - 8), rel=EXACT)


def test_layer_decay_leaves_biases_norms_and_bias_tables_undecayed():
    model = full_swin()
    ids, layers = layer_ids(model)
    found = by_name(model, layer_decay_groups(model, ids.__getitem__, layers, 0.05, 0.9))
    for name, parameter in model.named_parameters():
        plain = parameter.ndim == 1 or name.endswith("relative_position_bias_table")
        assert found[name]["weight_decay"] == (0.0 if plain else 0.05), name


@pytest.mark.parametrize("spec", [SWIN, VIT])
def test_undecayed_are_the_tensors_that_timm_leaves_undecayed(spec):
    model = build(spec.name, spec.args, num_classes=3)
    ids, layers = layer_ids(model)
    ours = by_name(model, layer_decay_groups(model, ids.__getitem__, layers, 0.05, 0.9))
    theirs = by_name(
        model, param_groups_layer_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.9)
    )
    assert {n: g["weight_decay"] for n, g in ours.items()} == {n: g["weight_decay"] for n, g in theirs.items()}


def test_a_model_that_declares_nothing_can_be_grouped():
    model = nn.Sequential(nn.Linear(2, 3))
    groups = layer_decay_groups(model, lambda name: 0, 1, 0.05, 0.9)
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
