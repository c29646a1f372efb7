"""Supervised classification: its first loss, its steps against a slow restatement, and that it learns."""

import copy
import math

import annotated
import pytest
import torch
from micro import SWIN, VIT, cropped, recorded, run

from sept.backbones import Backbone
from sept.errors import ConfigError
from sept.methods.recipe import Length
from sept.methods.supervised.learner import Supervised

STEPS = 4


def trained(folder, backbone=SWIN, images=32, steps=STEPS, **changes):
    recipe = annotated.supervised(**changes)
    learner = recorded(Supervised)(recipe, backbone, seed=0, length=Length(steps, 2))
    return run(learner, cropped(learner, annotated.subset(folder / "images", images, "labels"), 16), folder)


def test_the_first_loss_is_that_of_chance(tmp_path):
    learner = trained(tmp_path, smoothing=0.0)
    assert learner.losses[0] == pytest.approx(math.log(annotated.CLASSES), rel=1e-6)
    assert learner.batches[0]["label"].dtype == torch.int64


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_step_is_softmax_and_the_optimiser_worked_out_one_by_one(smoothing, tmp_path):
    """SGD with momentum, so that the step shows the gradient itself; decay, clipping and rate with it."""
    settings = {"optimiser": "sgd", "lr": 0.2, "weight_decay": 0.01, "clip": 0.5, "smoothing": smoothing}
    learner = trained(tmp_path, **settings)
    step, momenta = 0, {}
    for step in range(2):
        net = copy.deepcopy(learner).double()
        net.load_state_dict(learner.before[step])
        net.train()
        batch = learner.batches[step]
        features = net.backbone(learner.views(batch, step)[0:16].double())
        loss = 0.0
        for row, label in zip(features, batch["label"].tolist(), strict=True):
            logits = net.head.weight @ row + net.head.bias
            told = logits - torch.logsumexp(logits, 0)
            share = smoothing / annotated.CLASSES
            loss = loss - ((1 - smoothing) * told[label] + share * told.sum()) / 16
        assert learner.losses[step] == pytest.approx(loss.item(), rel=1e-5)
        loss.backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in net.parameters() if p.grad is not None))
        after = [*learner.before, learner.state_dict()][step + 1]
        for name, p in net.named_parameters():
            plain = p.ndim < 2 or name.endswith("relative_position_bias_table")
            gradient = p.grad * min(1.0, 0.5 / (norm + 1e-6)) + (0.0 if plain else 0.01) * p.detach()
            momenta[name] = 0.9 * momenta.get(name, 0.0) + gradient
            expected = p.detach() - learner.rates[step][0] * momenta[name]
            torch.testing.assert_close(after[name].double(), expected, rtol=1e-4, atol=1e-6, msg=name)


def test_what_the_networks_authors_exempt_is_not_decayed():
    learner = Supervised(annotated.supervised(), VIT, seed=0, length=Length(1, 1))
    decayed, plain = ({id(p) for p in group["params"]} for group in learner.configure_optimizers().param_groups)
    names = {name: id(p) for name, p in learner.named_parameters()}
    assert {names["backbone.pos_embed"], names["backbone.cls_token"], names["head.bias"]} <= plain
    assert {names["head.weight"], names["backbone.patch_embed.proj.weight"]} <= decayed


def test_labels_are_learnt_by_heart(tmp_path):
    learner = trained(tmp_path, images=16, steps=40, smoothing=0.0, lr=5e-3, crop_scale=[0.8, 1.0])
    assert learner.losses[-1] < 0.5 * math.log(annotated.CLASSES)
    assert learner.health()["effective_rank"] > 1.5


def test_batch_norm_and_a_network_without_stochastic_depth_are_taken(tmp_path):
    backbone = Backbone("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]})
    learner = trained(tmp_path, backbone=backbone, optimiser="sgd", lr=0.1)
    assert learner.losses[0] == pytest.approx(math.log(annotated.CLASSES), rel=1e-6)
    assert math.isfinite(learner.losses[-1])


def test_the_head_has_as_many_outputs_as_there_are_classes_or_as_are_asked_for():
    recipe = annotated.supervised(classes=None)
    assert recipe.of_classes(7).classes == 7
    assert annotated.supervised(classes=9).of_classes(7).classes == 9
    with pytest.raises(ConfigError, match=r"pretrain\.classes=5, and the chosen images are of 7 classes"):
        annotated.supervised(classes=5).of_classes(7)
    with pytest.raises(ConfigError, match=r"all of one class: set pool\.labels"):
        recipe.of_classes(1)
