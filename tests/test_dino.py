"""DINO against what it is: its loss at chance, a step worked out in float64, every backbone, its published options."""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from micro import SIDE, SWIN, VIT, cropped, dino, recorded, run, subset
from timm.layers import DropPath
from torch import nn

from sept.backbones import Backbone
from sept.compose import experiment, options
from sept.methods.dino.learner import Dino
from sept.methods.recipe import Length
from sept.methods.selfdistillation import cls_loss, sharpen

RESNET = Backbone("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 24], "output_stride": 8})
PER_EPOCH, STEPS, BATCH = 2, 6, 8
FINAL = "student.head.last_layer.parametrizations.weight.original"  # 0: lengths, 1: directions


def a_dino(backbone=VIT, steps=STEPS, **changes):
    return recorded(Dino)(dino(**changes), backbone, seed=0, length=Length(steps, PER_EPOCH))


def trained(folder, backbone=VIT, steps=STEPS, images=16, **changes):
    learner = a_dino(backbone, steps, **changes)
    return run(learner, cropped(learner, subset(folder / "images", images), BATCH), folder)


@pytest.fixture(scope="module")
def dino_run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("dino"), momentum=0.8, lr=0.02, teacher_temp=0.06, warmup_epochs=1)


@pytest.mark.parametrize("backbone", [VIT, SWIN, RESNET])
def test_loss_starts_at_that_of_a_guess(backbone, tmp_path):
    """ln K with a centre. Without one, a network that tells no crops apart gives student and teacher the same normal
    logits, of deviations s and t: ln K + s^2 / 2 - s t is expected, and more of one that does.
    """
    sizes = {"out_dim": 65_536, "head_bottleneck_dim": 256}
    learner = trained(tmp_path, backbone, 2, lr=0.0, center_momentum=0.0, **sizes)
    s, t = (1 / 256**0.5 / temperature for temperature in (0.1, 0.04))
    first, second = learner.losses
    assert 0.98 * (math.log(65_536) + s**2 / 2 - s * t) < first < 1.02 * (math.log(65_536) + s**2 / 2)
    assert second == pytest.approx(math.log(65_536), rel=0.02)


def test_loss_of_a_uniform_student_is_ln_k(tmp_path):
    learner = trained(tmp_path, VIT, 1, student_temp=10.0, out_dim=4096)
    assert learner.losses[0] == pytest.approx(math.log(4096), rel=0.02)


def head(net, x):
    """Restated: three layers with GELU, unit length, products with prototypes of a direction and a length."""
    for layer in (0, 2, 4):
        x = net.mlp[layer](x)
        x = x if layer == 4 else F.gelu(x)
    x = x / x.norm(dim=-1, keepdim=True)
    weight = net.last_layer.parametrizations.weight
    return x @ (weight.original0 * weight.original1 / weight.original1.norm(dim=1, keepdim=True)).T


def restated(learner, step):
    """The network before a step in float64, the step's loss, and the mean of the teacher's outputs."""
    net = copy.deepcopy(learner).double()
    net.load_state_dict(learner.before[step])
    crops = [crop.double() for crop in learner.views(learner.batches[step], step)]
    with torch.no_grad():
        teacher = [head(net.teacher["head"], net.teacher["backbone"](crop)) for crop in crops[:2]]
    student = [head(net.student["head"], net.student["backbone"](crop)) for crop in crops]
    temperature = 0.04 if step < PER_EPOCH else 0.06  # a warm-up of two epochs
    terms = []
    for q, of_teacher in enumerate(teacher):
        for v, of_student in enumerate(student):
            if v == q:
                continue
            for z, y in zip(of_teacher, of_student, strict=True):
                target = torch.exp((z - net.cls_center[0]) / temperature)
                terms.append(-(target / target.sum() * (y / 0.1 - torch.logsumexp(y / 0.1, 0))).sum())
    assert len(terms) == BATCH * 2 * (len(crops) - 1)
    return net, sum(terms) / len(terms), torch.cat(teacher).mean(dim=0)


@pytest.mark.parametrize("step", [0, 1, 5])
def test_loss_uses_the_previous_centre_and_the_epochs_temperature_and_moves_the_centre_after(dino_run, step):
    _, loss, mean = restated(dino_run, step)
    assert dino_run.losses[step] == pytest.approx(loss.item(), rel=1e-4)
    after = [*dino_run.before, dino_run.state_dict()][step + 1]["cls_center"]
    expected = 0.9 * dino_run.before[step]["cls_center"].double() + 0.1 * mean
    torch.testing.assert_close(after.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_first_step_equals_one_worked_out_in_float64(optimiser, tmp_path):
    """Gradients, each clipped by its own norm, the optimiser's first step and the teacher's, from the new weights."""
    how = {"optimiser": optimiser, "clip": 0.05, "freeze_prototypes_epochs": 0, "momentum": 0.7, "weight_decay": 0.3}
    learner = trained(tmp_path, steps=1, images=BATCH, lr=0.5, **how)
    net, loss, _ = restated(learner, 0)
    loss.backward()
    after, rate = learner.state_dict(), learner.lr(0)
    for name, p in net.student.named_parameters():
        moved = after[f"student.{name}"].double()
        if p.grad is None:
            assert name == "head.last_layer.parametrizations.weight.original0"  # lengths stay 1
            assert (moved == 1).all()
            continue
        gradient = p.grad * min(1.0, 0.05 / (p.grad.norm().item() + 1e-6))
        decay = 0.3 if p.ndim > 1 and not name.endswith(".bias") else 0.0
        if optimiser == "sgd":
            expected, tolerance = p - rate * (gradient + decay * p), {"rtol": 1e-4, "atol": 1e-5 * rate}
        else:
            expected = p * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-8)
            tolerance = {"rtol": 1e-4, "atol": 1e-4 * rate}
            sure = p.grad.abs() > 1e-4 * p.grad.abs().max()  # of a gradient of rounding errors, the sign is chance
            moved, expected = moved[sure], expected[sure]
        torch.testing.assert_close(moved, expected.detach(), **tolerance, msg=lambda m, n=name: f"{n}: {m}")
    for name, p in net.teacher.named_parameters():
        expected = 0.7 * p + 0.3 * after[f"student.{name}"].double()
        torch.testing.assert_close(after[f"teacher.{name}"].double(), expected, rtol=1e-5, atol=1e-6)


def test_last_layer_is_frozen_in_the_first_epoch_and_its_lengths_always(dino_run):
    seen = [*dino_run.before, dino_run.state_dict()]
    moved = [not torch.equal(seen[i][f"{FINAL}1"], seen[i + 1][f"{FINAL}1"]) for i in range(STEPS)]
    assert moved == [False] * PER_EPOCH + [True] * (STEPS - PER_EPOCH)
    assert all((state[f"{FINAL}0"] == 1).all() for state in seen)


def test_a_weight_decay_that_begins_at_nothing_rises(tmp_path):
    learner = trained(tmp_path, weight_decay=0.0, weight_decay_end=0.4)
    groups = learner.trainer.optimizers[0].param_groups
    assert [group["weight_decay"] for group in groups] == [pytest.approx(learner.weight_decay(STEPS - 1)), 0]
    assert groups[0]["weight_decay"] > 0.3


@pytest.mark.parametrize(("steps", "frozen"), [(45, 3), (183, 10)])
def test_a_budget_freezes_prototypes_for_the_recipes_part_of_its_warm_up(steps, frozen):
    """Half of a warm-up of two epochs, not the 15 steps of an epoch, which are a third of the shorter budget."""
    length, recipe = Length(steps, 15, warmup_share=0.1), dino(warmup_epochs=2, freeze_prototypes_epochs=1)
    epochs = [length.epoch(step, recipe.warmup_epochs) for step in range(steps)]
    assert sum(epoch < recipe.freeze_prototypes_epochs for epoch in epochs) == frozen
    assert epochs.index(2) in (length.warmup(2), length.warmup(2) + 1)
    assert [replace(length, warmup_share=None).epoch(step, 2) for step in (0, 14, 15, 44)] == [0, 0, 1, 2]
    learner = Dino(recipe, VIT, seed=0, length=length)
    for step in (frozen - 1, frozen):
        learner._trainer = SimpleNamespace(global_step=step)
        assert learner.epoch == (step == frozen)


def test_lengths_of_prototypes_can_be_learned(tmp_path):
    learner = trained(tmp_path, lr=0.02, norm_last_layer=False)
    assert (learner.state_dict()[f"{FINAL}0"] != 1).any()


def test_crops_of_one_size_are_encoded_together_and_none_need_be_local(tmp_path):
    for place, changes, expected in (
        ("two sizes", {}, [(2 * BATCH, SIDE), (2 * BATCH, 16)]),
        ("one size", {"local_side": SIDE}, [(4 * BATCH, SIDE)]),
        ("none", {"local_crops": 0}, [(2 * BATCH, SIDE)]),
    ):
        learner, seen = a_dino(steps=1, **changes), []
        learner.student["backbone"].register_forward_pre_hook(
            lambda module, images, seen=seen: seen.append((len(images[0]), images[0].shape[-1]))
        )
        run(learner, cropped(learner, subset(tmp_path / "images", BATCH), BATCH), tmp_path / place)
        assert seen == expected


def test_drop_path_is_the_students_alone():
    learner = a_dino(SWIN, drop_path_rate=0.5)
    rates = [
        {m.drop_prob for m in branch.modules() if isinstance(m, DropPath)}
        for branch in (learner.student, learner.teacher)
    ]
    assert max(rates[0]) == 0.5
    assert rates[1] <= {0.0}


def test_batch_norm_of_the_teacher_has_statistics_of_its_own(tmp_path):
    state = trained(tmp_path, RESNET, lr=1e-3).state_dict()
    assert state["teacher.backbone.bn1.num_batches_tracked"] == STEPS
    assert state["student.backbone.bn1.num_batches_tracked"] == 2 * STEPS  # global crops, and local ones
    assert not torch.equal(state["teacher.backbone.bn1.running_mean"], state["student.backbone.bn1.running_mean"])


@pytest.mark.parametrize("backbone", [VIT, SWIN, RESNET])
def test_features_stay_apart(backbone, tmp_path):
    learner = trained(tmp_path, backbone, 30, lr=0.01, momentum=0.9, teacher_temp=0.04)
    assert learner.health()["effective_rank"] > 2


def test_weight_decay_follows_half_a_cosine(dino_run):
    assert dino_run.weight_decay(0) == pytest.approx(0.04)
    assert dino_run.weight_decay(STEPS // 2) == pytest.approx(0.22)
    used = dino_run.trainer.optimizers[0].param_groups
    assert [group["weight_decay"] for group in used] == [pytest.approx(dino_run.weight_decay(STEPS - 1)), 0]


@pytest.mark.parametrize("option", [name for name in options("pretrain") if name.startswith("dino_")])
def test_every_option_builds_its_learner_and_counts_its_cost(option):
    backbone = option.removeprefix("dino_")
    backbone = "vit_micro" if backbone == "micro" else backbone
    config = experiment([f"pretrain={option}", f"backbone={backbone}"])
    recipe, network = config.pretrain, config.backbone
    recipe.check("pretrain")
    with torch.device("meta"):
        learner = Dino(recipe, network, seed=0, length=Length(2, 1))
        for side in recipe.sides():
            features = learner.teacher["backbone"](torch.empty(2, 3, side, side))
            assert learner.teacher["head"](features).shape == (2, recipe.out_dim)
    assert recipe.flops(network) > 0


def test_lightlys_loss_agrees():
    loss = pytest.importorskip("lightly.loss").DINOLoss(
        output_dim=32, warmup_teacher_temp=0.05, teacher_temp=0.05, warmup_teacher_temp_epochs=1, center_momentum=0.9
    )
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 4, 32), torch.randn(5, 4, 32)
    center = torch.zeros(1, 32)
    for _ in range(2):  # the second time with a centre
        theirs = loss([*teacher], [*student], epoch=1)
        ours = cls_loss([*student], [sharpen(each, center, 0.05) for each in teacher], 0.1)
        center = 0.9 * center + 0.1 * teacher.flatten(0, 1).mean(dim=0)
        torch.testing.assert_close(ours, theirs)


def test_the_head_has_no_batch_norm():
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in a_dino().student["head"].modules())
