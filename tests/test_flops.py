"""The closed-form FLOPs against torch's counter, of forward passes and of whole training steps."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from micro import SWIN, VIT, cropped, dino, finetune, ibot, labelled, moby, run, subset
from torch.utils.flop_counter import FlopCounterMode

from sept.backbones import Backbone
from sept.backbones.flops import forward_flops, width
from sept.backbones.networks import any_side, build
from sept.config import Compute
from sept.errors import ConfigError
from sept.methods.dino.learner import Dino
from sept.methods.ibot.learner import IBot
from sept.methods.moby.learner import MoBy
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.recipe import Length
from sept.stages.task_selection import search_flops
from sept.transfer.classify import Classifier

SWIN_TINY, VIT_SMALL = Backbone("swin_tiny_patch4_window7_224"), Backbone("vit_small_patch16_224")


def counted(model, side, **args):
    with torch.device("meta"):
        net = timm.create_model(model.name, num_classes=0, **model.args, **args).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops()


def swin(img_size, patch_size=4, window_size=4, embed_dim=32, depths=(1, 1, 2)):
    sizes = {"img_size": img_size, "patch_size": patch_size, "window_size": window_size, "embed_dim": embed_dim}
    return Backbone(SWIN_TINY.name, {**sizes, "depths": list(depths), "num_heads": [2**i for i in range(len(depths))]})


@pytest.mark.parametrize(
    ("model", "side"),
    [
        (VIT_SMALL, 224),
        (SWIN_TINY, 224),
        (VIT, 32),
        (SWIN, 32),
        (swin(48, window_size=5), 48),
        (swin(36), 36),  # odd grids are padded
        (swin(28, window_size=7), 28),
    ],
)
def test_forward_equals_torchs_counter(model, side):
    assert forward_flops(model, side) == counted(model, side)


@pytest.mark.parametrize(("model", "side"), [(SWIN_TINY, 96), (SWIN_TINY, 192), (SWIN_TINY, 256), (VIT_SMALL, 96)])
def test_forward_at_another_side_equals_torchs_counter_of_the_model_built_for_it(model, side):
    with torch.device("meta"):
        net = build(model.name, model.args, side=side).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, 3, side, side, device="meta"))
    assert forward_flops(model, side) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("model", "side", "local"),
    [
        (SWIN_TINY, 224, 96),
        (VIT_SMALL, 224, 96),
        (SWIN, 32, 16),
        (swin(40, window_size=3), 40, 28),
        (SWIN_TINY, 192, 96),
        (Backbone("resnet50"), 224, 96),
        (Backbone("swinv2_tiny_window8_256"), 256, 128),  # measured
    ],
)
def test_local_crops_of_a_network_count_at_their_own_size(model, side, local):
    with torch.device("meta"):
        net = build(model.name, any_side(model.name, model.args, side), side=side).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, 3, local, local, device="meta"))
    assert forward_flops(model, local, side) == counter.get_total_flops()


def test_published_sizes_are_the_papers():
    assert forward_flops(SWIN_TINY, 224) / 2e9 == pytest.approx(4.5, abs=0.05)  # Swin paper, Table 1: 4.5G
    assert forward_flops(VIT_SMALL, 224) / 2e9 == pytest.approx(4.6, abs=0.05)  # DeiT paper: 4.6G


@pytest.mark.parametrize("model", [SWIN_TINY, VIT_SMALL, SWIN, VIT, Backbone("resnet18")])
def test_width_is_that_of_the_pooled_feature(model):
    with torch.device("meta"):
        assert width(model) == timm.create_model(model.name, num_classes=0, **model.args).num_features


def test_models_and_arguments_that_the_closed_form_does_not_know_are_measured():
    resnet, thin = Backbone("resnet18"), Backbone(VIT.name, VIT.args | {"mlp_ratio": 2})
    assert forward_flops(resnet, 64) == counted(resnet, 64)
    assert forward_flops(thin, 32) == counted(thin, 32) < forward_flops(VIT, 32)


def test_local_crops_of_a_vit_without_closed_form_are_measured_too():
    tiny = Backbone("vit_tiny_patch16_224", {"img_size": 64})
    recipe = ibot(side=64, local_side=32)
    expected = recipe.flops(Backbone("vit_small_patch16_224", {"img_size": 64, "embed_dim": 192}))
    assert recipe.flops(tiny) == pytest.approx(expected, rel=0.01)


def trained(learner, batches, folder):
    with FlopCounterMode(display=False) as counter:
        run(learner, batches, folder)
    return counter.get_total_flops()


def test_moby_training_takes_the_flops_that_are_planned(tmp_path, unfused):
    recipe = moby()
    learner = MoBy(recipe, SWIN, seed=0, length=Length(2, 2))
    flops = trained(learner, cropped(learner, subset(tmp_path / "images", 32), 16), tmp_path)
    assert 32 * recipe.flops(SWIN) == pytest.approx(flops, rel=1e-4)  # the watch for collapse counts little


def test_ibot_training_takes_the_flops_that_are_planned(tmp_path, unfused):
    recipe = ibot()
    learner = IBot(recipe, VIT, seed=0, length=Length(2, 2))
    flops = trained(learner, cropped(learner, subset(tmp_path / "images", 16), 8), tmp_path)
    assert 16 * recipe.flops(VIT) == pytest.approx(flops, rel=1e-4)


@pytest.mark.parametrize("model", [VIT, SWIN, Backbone("resnet18", {"output_stride": 8})])
def test_dino_training_takes_the_flops_that_are_planned(model, tmp_path, unfused):
    recipe = dino()
    learner = Dino(recipe, model, seed=0, length=Length(2, 2))
    flops = trained(learner, cropped(learner, subset(tmp_path / "images", 16), 8), tmp_path)
    assert 16 * recipe.flops(model) == pytest.approx(flops, rel=1e-3)  # the watch for collapse counts little


def test_finetune_training_takes_the_flops_that_are_planned(tmp_path, unfused):
    recipe = finetune(epochs=2)
    learner = Classifier(recipe, SWIN, 5, None, seed=0, steps_per_epoch=1)
    flops = trained(learner, labelled(learner, 8, 5, 8), tmp_path)
    assert 16 * recipe.flops(SWIN, 5) == pytest.approx(flops, rel=1e-6)


def test_search_is_a_product_of_every_row_with_every_query():
    assert search_flops(1000, 505, 768) == 2 * 1000 * 505 * 768


@given(st.integers(1, 10**8))
def test_flops_and_images_of_steps_pay_for_exactly_those_steps(steps):
    recipe = MoByRecipe()
    each, batch = recipe.flops(SWIN_TINY), recipe.batch_size
    assert Compute(flops=steps * batch * each).steps(batch, each, 0.0) == steps
    assert Compute(images=steps * batch).steps(batch, each, 0.0) == steps
    assert Compute(epochs=steps).steps(batch, each, 0.0) is None


def test_a_budget_pays_for_whole_steps_and_at_least_one():
    assert Compute(flops=2.9e9).steps(10, 1e8, 0.0) == 2
    assert Compute(flops=2.9e9).steps(10, 1e8, 1e9) == 1
    with pytest.raises(ConfigError, match=r"^compute\.flops=9e\+08 is less than one step, which takes 1e\+09 FLOPs$"):
        Compute(flops=9e8).steps(10, 1e8, 0.0)
    with pytest.raises(ConfigError, match="is more than 1,000,000,000 steps"):
        Compute(flops=1e30).steps(10, 1e8, 0.0)
