"""SimMIM's step against one worked out patch by patch in float64; its start, its masks in windows, its optimiser."""

import copy
import math
from functools import partial

import micro
import pytest
import timm
import torch
from masked import BATCH, IMAGES, adamw_step, by_heart, simmim
from micro import SIDE, SWIN
from timm.layers import DropPath

from sept import compose
from sept.backbones import Backbone
from sept.data.rng import generator
from sept.methods.masking import draw_masks
from sept.methods.recipe import Length
from sept.methods.simmim.learner import SimMIM
from sept.methods.simmim.recipe import SimMIMRecipe

PATCH, GRID, UNIT, HIDDEN = 4, 8, 8, 10  # pixels, patches, pixels, of 16 squares
CELL = 8
Recorded = micro.recorded(SimMIM)


def reference(net, images, masks):
    """The loss of a batch by the network in float64: embeddings replaced one by one, pixels compared one by one."""
    swin = net.swin
    x = swin.patch_embed(images)
    rows = []
    for i in range(len(images)):
        for y in range(GRID):
            for z in range(GRID):
                square = (y * PATCH // UNIT) * (SIDE // UNIT) + z * PATCH // UNIT
                rows.append(net.mask_token[0, 0, 0] if masks[i, square] else x[i, y, z])
    x = torch.stack(rows).view(len(images), GRID, GRID, -1)
    for stage in swin.layers:
        x = stage(x)
    x = swin.norm(x)
    weight, bias = net.decoder[0].weight[:, :, 0, 0], net.decoder[0].bias
    total, count = 0.0, 0
    for i, image in enumerate(images):
        for square in range((SIDE // UNIT) ** 2):
            if masks[i, square]:
                top, left = square // (SIDE // UNIT) * UNIT, square % (SIDE // UNIT) * UNIT
                for y in range(top, top + UNIT):
                    for z in range(left, left + UNIT):
                        pixels = weight @ x[i, y // CELL, z // CELL] + bias  # of a cell, channel by channel
                        for c in range(3):
                            found = pixels[c * CELL**2 + (y % CELL) * CELL + z % CELL]
                            total, count = total + (found - image[c, y, z]).abs(), count + 1
    return total / count


def as_was(learner, step):
    net = copy.deepcopy(learner).double()
    net.load_state_dict(learner.before[step])
    return net.train()


def test_a_step_equals_one_worked_out_patch_by_patch(tmp_path):
    learner = simmim(made=Recorded, batch_size=2, steps=2, eps=1e-3, lr=1e-2, clip=0.5, schedule="constant")
    micro.run(learner, micro.cropped(learner, micro.subset(tmp_path / "images", IMAGES), 2), tmp_path)
    for step in range(2):
        net, images = as_was(learner, step), learner.views(learner.batches[step], step).double()
        loss = reference(net, images, draw_masks(3, step, 2, 16, HIDDEN))
        assert learner.losses[step] == pytest.approx(loss.item(), rel=1e-5)
        if step == 0:
            loss.backward()
            gradients = {name: each.grad for name, each in net.named_parameters()}
            expected = adamw_step(learner, learner.before[0], gradients, rate=learner.rates[0][0])
            for name, value in expected.items():
                torch.testing.assert_close(learner.before[1][name].double(), value, rtol=1e-5, atol=2e-7)


def test_the_first_loss_is_that_of_random_predictions():
    """Of normal pixels, and predictions of variance 1/3: a map of torch's initialisation from a normalised token. A
    normal variable of variance s^2 has the mean absolute value s sqrt(2 / pi)."""
    args = {"img_size": 64, "window_size": 4, "embed_dim": 48, "depths": [1, 1, 1], "num_heads": [2, 2, 2]}
    learner = SimMIM(SimMIMRecipe(side=64, mask_unit=8), Backbone(SWIN.name, args), seed=0, length=Length(1, 1))
    images = torch.randn(16, 3, 64, 64, generator=generator(0))
    _, losses, zeros = learner.reconstruct(learner.swin, images, draw_masks(0, 0, 16, 64, 39))
    assert zeros.mean().item() == pytest.approx(math.sqrt(2 / math.pi), rel=0.01)
    assert losses.mean().item() == pytest.approx(math.sqrt(2 / math.pi * (1 + 1 / 3)), rel=0.02)


def test_what_is_hidden_changes_no_feature_and_what_is_not_does():
    learner = simmim()
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator(0))
    mask = draw_masks(0, 0, BATCH, 16, HIDDEN)
    pixels = mask.unflatten(1, (4, 4)).repeat_interleave(UNIT, 1).repeat_interleave(UNIT, 2).unsqueeze(1)
    first = learner.reconstruct(learner.swin, images, mask)
    hidden = learner.reconstruct(learner.swin, torch.where(pixels, images.flip(0), images), mask)
    shown = learner.reconstruct(learner.swin, torch.where(pixels, images, images.flip(0)), mask)
    assert torch.equal(hidden[0], first[0])
    assert not torch.allclose(hidden[1], first[1])  # the target has changed
    assert not torch.allclose(shown[0], first[0])


def test_the_mask_token_is_learnt_through_shifted_windows_and_not_decayed(tmp_path):
    learner = simmim(made=Recorded, lr=1e-2, schedule="constant")
    assert [block.shift_size for block in learner.swin.layers[1].blocks]
    assert 0 < learner.mask_token.std() < 0.03
    micro.run(learner, micro.cropped(learner, micro.subset(tmp_path / "images", IMAGES), BATCH), tmp_path)
    assert not torch.equal(learner.mask_token, learner.before[0]["mask_token"])
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    decayed, plain = ({names[id(p)] for p in g["params"]} for g in learner.configure_optimizers().param_groups)
    assert "mask_token" in plain
    assert sum(name.endswith("relative_position_bias_table") for name in decayed) == sum(SWIN.args["depths"])


def test_published_rates_step_to_a_tenth_after_seven_eighths():
    recipe = compose.experiment(["pretrain=simmim_swin_t"]).pretrain
    with torch.device("meta"):
        learner = SimMIM(recipe, compose.experiment(["backbone=swin_t_192"]).backbone, seed=0, length=Length(800, 1))
    assert learner.lr(0) == pytest.approx(5e-7 * 4)
    assert learner.lr(12) == learner.lr(700) == pytest.approx(4e-4)
    assert learner.lr(701) == learner.lr(799) == pytest.approx(4e-5)
    assert recipe.units == 36
    assert recipe.hidden == 22
    assert {module.drop_prob for module in learner.swin.modules() if isinstance(module, DropPath)} <= {0.0}


def test_swin_t_of_windows_of_six_fills_its_192_pixels():
    network = compose.experiment(["backbone=swin_t_192"]).backbone
    with torch.device("meta"):
        swin = timm.create_model(network.name, num_classes=0, **network.args)
    sizes = [(stage.blocks[0].input_resolution, stage.blocks[0].window_size) for stage in swin.layers]
    assert sizes == [((side, side), (6, 6)) for side in (48, 24, 12, 6)]


def test_few_images_are_learnt_by_heart(tmp_path):
    losses, share = by_heart(partial(simmim, made=Recorded), tmp_path, lr=5e-3)
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert share[-1] < 0.6
