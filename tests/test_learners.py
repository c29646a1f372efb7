"""The learners' steps against references worked out by hand from recorded states, and that each of them learns."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from micro import (
    SIDE,
    SWIN,
    VIT,
    Labelled,
    cropped,
    curve,
    finetune,
    ibot,
    labelled,
    moby,
    recorded,
    run,
    subset,
)
from timm.layers import DropPath
from torch import nn

from sept.backbones.networks import build
from sept.backbones.weights import save_backbone
from sept.data.loading import collate
from sept.data.rng import generator
from sept.data.transforms import normalise
from sept.errors import NonFiniteError
from sept.methods.ibot.learner import IBot
from sept.methods.ibot.loss import patch_loss
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.methods.selfdistillation import cls_loss
from sept.training.learner import clip_each, seeded_weights
from sept.transfer.classify import Classifier
from sept.transfer.probe import nearest_class_mean


def part(state, prefix):
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def close(state, expected, **tolerance):
    for key, value in expected.items():
        torch.testing.assert_close(state[key].double(), value.double(), **tolerance, msg=lambda m, k=key: f"{k}: {m}")


def moving_average(target, online, momentum):
    """Of the parameters: what both hold, less BatchNorm's statistics."""
    names = [n for n in target if n in online and "running_" not in n and "num_batches" not in n]
    return {n: momentum * target[n].double() + (1 - momentum) * online[n].double() for n in names}


def states(learner):
    return [*learner.before, learner.state_dict()]


# Shared


@pytest.mark.parametrize("limit", [0.5, 3.0])
def test_ibot_clipping_is_per_tensor(limit):
    parameters = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(1))]
    grads = [torch.full((3, 2), 2.0), torch.full((4,), 0.1), None]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = None if grad is None else grad.clone()
    clip_each(parameters, limit)
    assert parameters[2].grad is None
    for parameter, grad in zip(parameters[:2], grads[:2], strict=True):
        norm = math.sqrt(sum(value * value for value in grad.flatten().tolist()))
        torch.testing.assert_close(parameter.grad, grad * min(1.0, limit / (norm + 1e-6)))


def test_initial_weights_depend_on_seed_and_purpose_and_leave_the_generator_alone():
    def weights(seed, purpose):
        with seeded_weights(seed, purpose):
            return nn.Linear(4, 4).weight

    torch.manual_seed(0)
    first = weights(1, "moby")
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == after
    assert torch.equal(weights(1, "moby"), first)
    assert not torch.equal(weights(2, "moby"), first)
    assert not torch.equal(weights(1, "ibot"), first)


def test_a_loss_that_is_not_finite_stops_the_finetune_naming_the_step(tmp_path):
    class Diverging(Classifier):
        def on_train_batch_start(self, batch, batch_idx):
            super().on_train_batch_start(batch, batch_idx)
            if self.step == 2:
                self.model.head.fc.weight.data[0, 0] = math.nan

    learner = Diverging(finetune(), SWIN, 3, None, seed=0, steps_per_epoch=1)
    with pytest.raises(NonFiniteError, match=r"the loss of step 2 is nan; lower the learning rate \(.* now\)"):
        run(learner, labelled(learner, 8, 3, 8), tmp_path)


# MoBy

MOBY_EPOCHS, MOBY_PER_EPOCH = 3, 2
MOBY_STEPS = MOBY_EPOCHS * MOBY_PER_EPOCH


def a_moby(**changes):
    recipe = moby(warmup_epochs=1, momentum=0.7, **changes)
    return recorded(MoBy)(recipe, SWIN, seed=0, length=Length(MOBY_EPOCHS * MOBY_PER_EPOCH, MOBY_PER_EPOCH))


@pytest.fixture(scope="module")
def moby_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moby")
    learner = a_moby()
    return run(learner, cropped(learner, subset(folder / "images", 32), 16), folder)


def momentum(step):
    return 1 - (1 - 0.7) * (1 + math.cos(math.pi * step / MOBY_STEPS)) / 2


def test_moby_target_moves_towards_the_weights_before_the_optimisers_step(moby_run):
    seen = states(moby_run)
    assert len(seen) == MOBY_STEPS + 1
    assert momentum(0) == pytest.approx(0.7)
    for step in range(MOBY_STEPS):
        before, after = seen[step], seen[step + 1]
        online, target = part(before, "online."), part(before, "target.")
        expected = moving_average(target, online, momentum(step))
        close(part(after, "target."), expected, rtol=1e-5, atol=1e-6)
        assert any(not torch.equal(part(after, "online.")[n], online[n]) for n in expected)


def test_moby_target_starts_equal_and_collects_its_own_batchnorm_statistics(moby_run):
    first, last = moby_run.before[0], moby_run.state_dict()
    online, target = part(first, "online."), part(first, "target.")
    assert online.keys() == target.keys()
    assert all(torch.equal(online[name], target[name]) for name in online)
    for name in ("projector.1.running_mean", "projector.1.running_var"):
        assert not torch.equal(last[f"target.{name}"], first[f"target.{name}"])
        assert not torch.equal(last[f"target.{name}"], last[f"online.{name}"])
    assert last["target.projector.1.num_batches_tracked"] == 2 * MOBY_STEPS  # each view for itself


def moby_reference(learner, step):
    """Loss and keys of a step in float64: one view at a time, in the order of the published code."""
    net = copy.deepcopy(learner).double()
    net.load_state_dict(learner.before[step])
    net.train()
    view1, view2 = (view.double() for view in learner.views(learner.batches[step], step))
    pred1, pred2 = (
        F.normalize(net.predictor(net.online["projector"](net.online["encoder"](v))), dim=1) for v in (view1, view2)
    )
    averaged = moving_average(
        part(learner.before[step], "target."), part(learner.before[step], "online."), momentum(step)
    )
    net.target.load_state_dict(averaged, strict=False)
    key1, key2 = (F.normalize(net.target["projector"](net.target["encoder"](v)), dim=1) for v in (view1, view2))
    queue1, queue2 = learner.before[step]["queue.keys"].double()
    loss = 0.0
    for pred, key, queue in ((pred1, key2, queue2), (pred2, key1, queue1)):
        for q, k in zip(pred, key, strict=True):
            logits = torch.cat([(q @ k)[None], q @ queue]) / 0.2
            loss += (torch.logsumexp(logits, 0) - logits[0]).item() / len(pred)
    return loss, key1, key2


@pytest.mark.parametrize("step", [0, 1, 5])
def test_moby_step_equals_the_published_order_worked_out_view_by_view(moby_run, step):
    loss, key1, key2 = moby_reference(moby_run, step)
    assert moby_run.losses[step] == pytest.approx(loss, rel=1e-4)
    written = states(moby_run)[step + 1]["queue.keys"]
    start = step * 16 % 64
    torch.testing.assert_close(written[0, :, start : start + 16].T.double(), key1, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(written[1, :, start : start + 16].T.double(), key2, rtol=1e-3, atol=1e-4)


def test_moby_rates_are_scaled_with_the_batch():
    learner = MoBy(moby(lr_batch=64, lr=1e-3, min_lr=1e-5), SWIN, seed=0, length=Length(10, 1))
    assert learner.lr(0) == pytest.approx(1e-3 * 16 / 64)
    assert learner.lr(11) == pytest.approx(1e-5 * 16 / 64)
    constant = MoBy(moby(schedule="constant", lr=1e-3), SWIN, seed=0, length=Length(10, 1))
    assert constant.lr(9) == 1e-3


def test_moby_optimiser_runs_at_the_schedules_rate(moby_run):
    assert moby_run.rates == [[moby_run.lr(step)] * 2 for step in range(MOBY_STEPS)]
    assert moby_run.rates[0] == [5e-7] * 2


def test_moby_target_has_no_drop_path_and_the_online_encoder_has():
    learner = MoBy(moby(drop_path_rate=0.5), SWIN, seed=0, length=Length(1, 1))

    def rates(branch):
        return [module.drop_prob for module in branch.modules() if isinstance(module, DropPath)]

    assert max(rates(learner.online)) == 0.5
    assert set(rates(learner.target)) == {0.0}
    x = torch.randn(8, 3, SIDE, SIDE, generator=generator(0))
    encoder = learner.target["encoder"].train()
    assert torch.equal(encoder(x), encoder(x))


def test_moby_decays_bias_tables_unless_told_not_to():
    def decayed(**changes):
        learner = MoBy(moby(**changes), SWIN, seed=0, length=Length(1, 1))
        names = {id(parameter): name for name, parameter in learner.named_parameters()}
        optimizer = learner.configure_optimizers()
        trained = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(trained) == sorted(id(p) for p in learner.parameters() if p.requires_grad)
        assert not any(names[parameter].startswith("target.") for parameter in trained)
        return {names[id(p)] for p in optimizer.param_groups[0]["params"]}

    tables = {name for name in decayed() if name.endswith("relative_position_bias_table")}
    assert len(tables) == sum(SWIN.args["depths"])
    assert decayed() - decayed(decay_bias_table=False) == tables


def test_moby_loss_starts_at_chance_and_falls_on_a_few_images(tmp_path):
    mild = {"crop_scale": [0.6, 1.0], "jitter": 0.2, "grayscale": 0.0, "blur": [0.0, 0.0], "solarise": [0.0, 0.0]}
    learner = recorded(MoBy)(moby(lr=1e-2, momentum=0.8, **mild), SWIN, seed=0, length=Length(30, 1))
    run(learner, cropped(learner, subset(tmp_path / "images", 16), 16), tmp_path)
    chance = 2 * math.log(64 + 1)
    assert learner.losses[0] == pytest.approx(chance, rel=0.1)
    assert sum(learner.losses[-5:]) / 5 < 0.65 * chance  # the queue holds earlier keys of the same images
    assert curve(tmp_path, "loss_over_chance")[-1] < 0.65
    assert curve(tmp_path, "feature_std")[-1] > 0.1  # not collapsed


def test_moby_takes_a_selection_smaller_than_its_batch(tmp_path):
    learner = recorded(MoBy)(moby(), SWIN, seed=0, length=Length(7, 1))
    run(learner, cropped(learner, subset(tmp_path / "images", 10), 16), tmp_path)
    assert learner.queue.position == 70 % 64


# iBOT

IBOT_PER_EPOCH, IBOT_EPOCHS = 2, 4
IBOT_STEPS = IBOT_PER_EPOCH * IBOT_EPOCHS


@pytest.fixture(scope="module")
def ibot_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ibot")
    recipe = ibot(momentum=0.8, lr=0.02, weight_decay=0.04, weight_decay_end=0.4)
    learner = recorded(IBot)(recipe, VIT, seed=0, length=Length(IBOT_EPOCHS * IBOT_PER_EPOCH, IBOT_PER_EPOCH))
    return run(learner, cropped(learner, subset(folder / "images", 16), 8), folder)


def test_ibot_teacher_moves_towards_the_weights_after_the_optimisers_step(ibot_run):
    seen = states(ibot_run)
    for step in range(IBOT_STEPS):
        m = 1 - (1 - 0.8) * (1 + math.cos(math.pi * step / IBOT_STEPS)) / 2
        expected = moving_average(part(seen[step], "teacher."), part(seen[step + 1], "student."), m)
        assert len(expected) == len(part(seen[step], "teacher."))
        close(part(seen[step + 1], "teacher."), expected, rtol=1e-5, atol=1e-6)


def teacher_outputs(learner, step):
    """CLS (2B, C) and patch (2B, L, C) outputs of the teacher on the unmasked global crops of a step, in float64."""
    net = copy.deepcopy(learner).double()
    net.load_state_dict(learner.before[step])
    crops, masks = learner.views(learner.batches[step], step)
    features = net.teacher["backbone"].forward_features(torch.cat(crops[:2]).double())
    return net, crops, masks, net.teacher["head"](features[:, 0]), net.teacher["head"](features[:, 1:])


def test_ibot_centres_move_to_the_batch_mean_after_the_loss(ibot_run):
    seen = states(ibot_run)
    for step in (0, 1, 5):
        _, _, _, cls, patch = teacher_outputs(ibot_run, step)
        for name, mean in (("cls_center", cls.mean(dim=0)), ("patch_center", patch.flatten(0, 1).mean(dim=0))):
            expected = 0.9 * seen[step][name].double().flatten() + 0.1 * mean
            torch.testing.assert_close(seen[step + 1][name].double().flatten(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("step", [0, 1, 5])
def test_ibot_loss_uses_the_previous_centres_and_the_epochs_temperature(ibot_run, step):
    net, crops, masks, cls, patch = teacher_outputs(ibot_run, step)
    epoch = step // IBOT_PER_EPOCH
    temperature = 0.04 if epoch == 0 else 0.07  # warm-up of two epochs
    before = ibot_run.before[step]
    target_cls = torch.softmax((cls - before["cls_center"].double()) / temperature, dim=-1)
    target_patch = torch.softmax((patch - before["patch_center"].double()) / temperature, dim=-1)

    def student(images, mask=None):
        vit, head = net.student["backbone"], net.student["head"]
        x = vit.patch_embed(images.double())
        grid = x.shape[1:3]
        x = x.flatten(1, 2)
        for i in range(len(x)):
            for j in range(x.shape[1]):
                if mask is not None and mask[i, j]:
                    x[i, j] = net.mask_token[0]
        x = vit.norm(vit.blocks(vit._pos_embed(x.unflatten(1, grid))))
        return head(x[:, 0]), head(x[:, 1:])

    with torch.no_grad():
        globals_ = [student(crop, mask) for crop, mask in zip(crops[:2], masks, strict=True)]
        all_cls = [c for c, _ in globals_] + [student(crop)[0] for crop in crops[2:]]
        expected = cls_loss(all_cls, list(target_cls.chunk(2)), 0.1)
        expected += patch_loss([p for _, p in globals_], list(target_patch.chunk(2)), masks, 0.1)
    assert any(mask.any() for mask in masks)
    assert ibot_run.losses[step] == pytest.approx(expected.item(), rel=1e-4)


def test_ibot_last_layer_is_frozen_in_the_first_epoch_alone(ibot_run):
    seen = states(ibot_run)
    name = "student.head.last_layer.parametrizations.weight.original1"
    for step in range(IBOT_STEPS):
        moved = not torch.equal(seen[step][name], seen[step + 1][name])
        assert moved == (step >= IBOT_PER_EPOCH), step
        bottleneck = "student.head.mlp.4.weight"
        assert not torch.equal(seen[step][bottleneck], seen[step + 1][bottleneck])


def test_ibot_mask_token_is_learned(ibot_run):
    assert (ibot_run.before[0]["mask_token"] == 0).all()
    assert (ibot_run.state_dict()["mask_token"] != 0).any()


def test_ibot_decay_rises_in_the_decayed_group_alone(ibot_run):
    groups = ibot_run.configure_optimizers().param_groups
    names = {id(parameter): name for name, parameter in ibot_run.named_parameters()}
    decayed, plain = ({names[id(p)] for p in group["params"]} for group in groups)
    prototypes = "student.head.last_layer.parametrizations.weight.original0"
    assert {"mask_token", "student.backbone.pos_embed", "student.backbone.cls_token", prototypes} <= decayed
    assert not any(name.startswith("teacher.") for name in decayed | plain)
    assert ibot_run.weight_decay(0) == pytest.approx(0.04)
    assert ibot_run.weight_decay(IBOT_STEPS // 2) == pytest.approx(0.22)
    used = ibot_run.trainer.optimizers[0].param_groups
    assert used[0]["weight_decay"] == pytest.approx(ibot_run.weight_decay(IBOT_STEPS - 1))
    assert used[1]["weight_decay"] == 0


def test_ibot_rate_is_per_256_images_and_temperature_climbs():
    learner = IBot(ibot(lr=5e-4, warmup_epochs=1), VIT, seed=0, length=Length(40, 10))
    assert learner.lr(0) == 0
    assert learner.lr(9) == pytest.approx(5e-4 * 8 / 256)
    assert learner.lr(40) == pytest.approx(1e-6)


def test_ibot_teacher_starts_as_the_student_without_drop_path_and_without_gradient():
    learner = IBot(ibot(drop_path_rate=0.5), VIT, seed=0, length=Length(1, 1))
    student, teacher = part(learner.state_dict(), "student."), part(learner.state_dict(), "teacher.")
    assert all(torch.equal(student[name], teacher[name]) for name in student | teacher)
    assert not any(isinstance(module, DropPath) for module in learner.teacher.modules())
    assert any(isinstance(module, DropPath) for module in learner.student.modules())
    assert not any(p.requires_grad for p in learner.teacher.parameters())
    assert learner.encoder is learner.teacher["backbone"]


def test_ibot_trains_at_another_side_than_the_models(tmp_path):
    learner = recorded(IBot)(ibot(side=48), VIT, seed=0, length=Length(1, 1))
    run(learner, cropped(learner, subset(tmp_path / "images", 8), 8), tmp_path)
    assert learner.batches[0]["masks"][0].shape == (8, 36)
    assert math.isfinite(learner.losses[0])


MILD = {"jitter": 0.2, "global_scale": [0.6, 1.0], "local_scale": [0.3, 0.6], "batch_size": 16, "lr": 0.05}


def test_ibot_loss_falls_on_a_few_images_where_the_teacher_stands_still(tmp_path):
    still = {"momentum": 1.0, "center_momentum": 1.0, "teacher_temp": 0.04, "warmup_teacher_temp": 0.04}
    learner = recorded(IBot)(ibot(**still, **MILD), VIT, seed=0, length=Length(40, 1))
    run(learner, cropped(learner, subset(tmp_path / "images", 16), 16), tmp_path)
    assert sum(learner.losses[-10:]) / 10 < 0.5 * sum(learner.losses[:4]) / 4


def test_ibot_teacher_does_not_collapse_and_the_loss_stays_under_chance(tmp_path):
    learner = recorded(IBot)(ibot(**MILD), VIT, seed=0, length=Length(30, 1))
    run(learner, cropped(learner, subset(tmp_path / "images", 16), 16), tmp_path)
    assert 0.2 < curve(tmp_path, "teacher_entropy_over_uniform")[-1] < 0.95
    assert sum(learner.losses[-10:]) / 10 < 0.75 * 2 * math.log(64)


# Fine-tuning


def test_finetune_rates_start_and_end_equal_in_all_layers(tmp_path):
    recipe = finetune(epochs=30, warmup_epochs=5, lr=1e-2, warmup_lr=1e-5, min_lr=2e-5, layer_decay=0.5)
    learner = recorded(Classifier)(recipe, SWIN, 3, None, seed=0, steps_per_epoch=1)
    run(learner, labelled(learner, 8, 3, 8), tmp_path)
    assert len(learner.rates) == 30
    assert set(learner.rates[0]) == {1e-5}
    assert [learner.lr(31, scale) for scale in (1.0, 0.1)] == pytest.approx([2e-5] * 2)
    middle = sorted(set(learner.rates[10]))
    layers = 2 + sum(SWIN.args["depths"])
    assert len(middle) == layers
    share = 0.5 * (1 + math.cos(math.pi * 9 / 30))
    for rate, scale in zip(middle, [0.5**i for i in reversed(range(layers))], strict=True):
        assert rate == pytest.approx(2e-5 + (1e-2 * scale - 2e-5) * share)


def test_finetune_rate_at_batch_64_is_that_of_the_published_rule():
    recipe = finetune(batch_size=64, lr_batch=512, lr=5e-3, epochs=10)
    learner = Classifier(recipe, SWIN, 3, None, seed=0, steps_per_epoch=1)
    assert learner.lr(0) == pytest.approx(6.25e-4)
    assert learner.lr(11) == pytest.approx(2.5e-7 * 64 / 512)


def test_finetune_head_starts_as_published_and_the_body_from_the_backbone(tmp_path):
    torch.manual_seed(5)
    backbone = build(SWIN.name, SWIN.args)
    save_backbone(backbone, tmp_path, SWIN.name, SWIN.args, {})
    learner = Classifier(finetune(), SWIN, 200, tmp_path / "model.safetensors", seed=0, steps_per_epoch=1)
    head = learner.model.get_classifier()
    assert head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert (head.bias == 0).all()
    state = learner.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in backbone.state_dict().items())


def test_finetune_head_depends_on_the_seed_and_not_on_the_backbone(tmp_path):
    save_backbone(build(SWIN.name, SWIN.args), tmp_path, SWIN.name, SWIN.args, {})

    def head(seed, path):
        learner = Classifier(finetune(), SWIN, 5, path, seed=seed, steps_per_epoch=1)
        return learner.model.get_classifier().weight

    assert torch.equal(head(0, None), head(0, tmp_path / "model.safetensors"))
    assert not torch.equal(head(0, None), head(1, None))


def test_finetune_loss_without_mixing_is_the_smoothed_cross_entropy(tmp_path):
    recipe = finetune(epochs=2, mixup=0.0, cutmix=0.0, erasing=0.0, smoothing=0.1)
    learner = recorded(Classifier)(recipe, SWIN, 5, None, seed=0, steps_per_epoch=1)
    run(learner, labelled(learner, 8, 5, 8), tmp_path)
    fresh = Classifier(recipe, SWIN, 5, None, seed=0, steps_per_epoch=1)
    batch = learner.batches[0]
    logits = fresh.model.train()(normalise(batch["images"])).double()
    expected = 0.0
    for row, label in zip(logits.log_softmax(dim=1).tolist(), batch["labels"].tolist(), strict=True):
        expected -= sum((0.9 * (c == label) + 0.1 / 5) * value for c, value in enumerate(row)) / 8
    assert learner.losses[0] == pytest.approx(expected, rel=1e-5)


def test_finetune_erases_before_it_mixes_as_timms_pipeline_does(tmp_path):
    learner = recorded(Classifier)(
        finetune(epochs=1, mixup=0.8, cutmix=0.0, erasing=1.0), SWIN, 5, None, seed=0, steps_per_epoch=1
    )
    seen = []
    learner.model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    run(learner, labelled(learner, 8, 5, 8), tmp_path)
    mixed, clean = seen[0], normalise(learner.batches[0]["images"])
    partner = clean.flip(0)
    distinct = (clean - partner).abs() > 0.5
    share = ((mixed - partner) / (clean - partner))[distinct].median()
    erased = ((mixed - partner.lerp(clean, share)).abs() > 1e-3).any(dim=1)
    assert 0 < share < 1
    assert erased.any(dim=(1, 2)).all()
    # Noise that came before the blend is in the same places of an image and its partner.
    assert torch.equal(erased, erased.flip(0))


def test_finetune_learns_a_few_images_by_heart(tmp_path):
    plain = {"mixup": 0.0, "cutmix": 0.0, "erasing": 0.0, "smoothing": 0.0, "layer_decay": 1.0}
    recipe = finetune(epochs=30, lr=2e-2, batch_size=16, lr_batch=16, **plain)
    learner = recorded(Classifier)(recipe, SWIN, 4, None, seed=0, steps_per_epoch=1)
    run(learner, labelled(learner, 16, 4, 16), tmp_path)
    assert learner.losses[0] == pytest.approx(math.log(4), rel=0.1)
    assert learner.losses[-1] < 0.1
    learner.eval()
    learner.test_batch(collate([Labelled(16, 4)[0, sample] for sample in range(16)]))
    assert learner.test_end()["top1"] == 100


def test_finetune_top1_counts_the_last_test_and_keeps_the_best():
    learner = Classifier(finetune(), SWIN, 3, None, seed=0, steps_per_epoch=1).eval()
    batch = collate([Labelled(6, 3)[0, sample] for sample in range(6)])
    with torch.no_grad():
        right = learner.model(normalise(batch["images"])).argmax(dim=1)
    learner.test_batch({**batch, "labels": right})
    assert learner.test_end() == {"top1": 100.0, "best_top1": 100.0}
    wrong = (right + 1) % 3
    learner.test_batch({**batch, "labels": torch.cat([right[:3], wrong[3:]])})
    assert learner.test_end() == {"top1": 50.0, "best_top1": 100.0}


def test_nearest_class_mean_is_that_of_a_loop_and_skips_classes_without_shots():
    features, test = (torch.randn(12, 4, generator=generator(i)) + 1 for i in range(2))
    labels, truth = torch.tensor([0, 1, 3] * 4), torch.tensor([0, 1, 2, 3] * 3)
    unit = [row / row.norm() for row in features.double()]
    center = sum(unit) / 12
    means = {c: sum(u - center for u, c_ in zip(unit, labels.tolist(), strict=True) if c_ == c) / 4 for c in (0, 1, 3)}
    hits = 0
    for row, label in zip(test.double(), truth.tolist(), strict=True):
        x = row / row.norm() - center
        hits += max(means, key=lambda c, x=x: float(x @ means[c] / means[c].norm())) == label
    assert nearest_class_mean(features, labels, test, truth) == pytest.approx(100 * hits / 12)
