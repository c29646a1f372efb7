"""MAE's step against one worked out token by token in float64; its start, its positions, and what it leaves."""

import math
from functools import partial

import micro
import pytest
import timm
import torch
from masked import BATCH, IMAGES, POOLED, STEPS, adamw_step, by_heart, mae
from micro import SIDE, VIT
from torch import nn

from sept import compose
from sept.backbones import Backbone
from sept.backbones.networks import build, sized_args
from sept.backbones.weights import load_backbone, save_backbone
from sept.data.rng import generator
from sept.methods.mae.learner import MAE, normalised, patch_pixels
from sept.methods.mae.positions import sincos
from sept.methods.mae.recipe import MAERecipe
from sept.methods.masking import draw_masks
from sept.methods.recipe import Length
from sept.methods.training import Pretraining
from sept.runtime.hardware import no_loggers

PATCH, GRID, WIDTH, KEPT = 8, 4, 32, 4
Recorded = micro.recorded(MAE)


# The start


def test_positions_are_sines_and_cosines_of_the_column_and_then_of_the_row():
    found = sincos(8, 2, 3).double()
    for place in range(6):
        expected = []
        for coordinate in (place % 3, place // 3):
            angles = [coordinate / 10_000 ** (i / 2) for i in range(2)]
            expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        torch.testing.assert_close(found[place], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("backbone", [VIT, POOLED])
def test_weights_start_as_maes(backbone):
    learner = mae(backbone=backbone)
    vit, decoder = learner.vit, learner.decoder
    for module in learner.modules():
        if isinstance(module, nn.Linear):
            bound = math.sqrt(6 / (module.in_features + module.out_features))
            assert 0.9 * bound < module.weight.abs().max() <= bound
            assert (module.bias == 0).all()
        if isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-6
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    bound = math.sqrt(6 / (WIDTH + 3 * PATCH**2))
    assert 0.9 * bound < vit.patch_embed.proj.weight.abs().max() <= bound
    for token in (vit.cls_token, decoder.mask_token):
        assert 0.01 < token.std() < 0.03
    assert torch.equal(vit.pos_embed[0, 1:], sincos(WIDTH, GRID, GRID))
    assert (vit.pos_embed[0, 0] == 0).all()
    assert torch.equal(decoder.places, sincos(16, GRID, GRID))
    fixed = {name for name, each in learner.named_parameters() if not each.requires_grad}
    assert fixed == {"vit.pos_embed"} | ({"vit.fc_norm.weight", "vit.fc_norm.bias"} if backbone is POOLED else set())


def test_loss_of_zero_is_the_papers_and_the_first_loss_adds_what_the_decoder_draws():
    """Of 16 x 16 x 3 pixels: 767 / 768, by the unbiased variance; and, of a Xavier map from a normalised token of 512
    channels, the variance 512 x 2 / (512 + 768) = 0.8."""
    recipe = MAERecipe(side=64, decoder_depth=1)
    args = {"img_size": 64, "embed_dim": 64, "depth": 1, "num_heads": 2}
    backbone = Backbone(VIT.name, args)
    learner = MAE(recipe, backbone, seed=0, length=Length(1, 1))
    images = torch.randn(16, 3, 64, 64, generator=generator(0))
    _, losses, zeros = learner.reconstruct(learner.vit, images, draw_masks(0, 0, 16, 16, 12))
    assert zeros.mean().item() == pytest.approx(767 / 768, rel=1e-4)
    assert losses.mean().item() == pytest.approx(767 / 768 + 0.8, rel=0.02)


# A step


def plain_blocks(state, prefix, depth, heads, x):
    """Transformer blocks on the tokens x (T, D) of one image, head by head."""

    def linear(name, z):
        return z @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    for block in (f"{prefix}.blocks.{i}" for i in range(depth)):
        z = norm(state, f"{block}.norm1", x)
        q, k, v = linear(f"{block}.attn.qkv", z).split(x.shape[1], dim=1)
        size = x.shape[1] // heads
        parts = []
        for head in range(heads):
            of = slice(head * size, (head + 1) * size)
            scores = torch.softmax(q[:, of] @ k[:, of].T / math.sqrt(size), dim=1)
            parts.append(scores @ v[:, of])
        x = x + linear(f"{block}.attn.proj", torch.cat(parts, dim=1))
        z = linear(f"{block}.mlp.fc1", norm(state, f"{block}.norm2", x))
        z = z * (1 + torch.erf(z / math.sqrt(2))) / 2
        x = x + linear(f"{block}.mlp.fc2", z)
    return x


def norm(state, name, x):
    centred = x - x.mean(dim=1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def reference(state, images, masks, norm_pix=True):
    """The loss of a batch in float64: each image for itself, each patch for itself."""
    last = "vit.norm" if "vit.norm.weight" in state else "norm"
    losses = []
    for image, mask in zip(images, masks, strict=True):
        corners = [(PATCH * (i // GRID), PATCH * (i % GRID)) for i in range(GRID**2)]
        patches = [image[:, y : y + PATCH, x : x + PATCH] for y, x in corners]
        weight = state["vit.patch_embed.proj.weight"].flatten(1)
        tokens = [state["vit.cls_token"][0, 0] + state["vit.pos_embed"][0, 0]]
        for i, patch in enumerate(patches):
            if not mask[i]:
                embedded = weight @ patch.flatten() + state["vit.patch_embed.proj.bias"]
                tokens.append(embedded + state["vit.pos_embed"][0, 1 + i])
        x = norm(state, last, plain_blocks(state, "vit", 2, 2, torch.stack(tokens)))
        x = x @ state["decoder.embed.weight"].T + state["decoder.embed.bias"]
        shown, full = iter(x[1:]), [x[0]]
        for i in range(GRID**2):
            token = state["decoder.mask_token"][0, 0] if mask[i] else next(shown)
            full.append(token + state["decoder.places"][i])
        y = norm(state, "decoder.norm", plain_blocks(state, "decoder", 1, 2, torch.stack(full)))
        y = y @ state["decoder.head.weight"].T + state["decoder.head.bias"]
        for i, patch in enumerate(patches):
            if mask[i]:
                target = patch.permute(1, 2, 0).flatten()
                if norm_pix:
                    target = (target - target.mean()) / (target.var(correction=1) + 1e-6).sqrt()
                losses.append((y[1 + i] - target).square().mean())
    return torch.stack(losses).mean()


def checked(learner, step):
    """Loss and gradients of a recorded step by the reference."""
    named = dict(learner.named_parameters())
    state = {name: value.double() for name, value in learner.before[step].items()}
    trained = {name for name, each in named.items() if each.requires_grad}
    state = {name: value.requires_grad_(name in trained) for name, value in state.items()}
    images = learner.views(learner.batches[step], step).double()
    loss = reference(state, images, draw_masks(3, step, BATCH, 16, 16 - KEPT), learner.recipe.norm_pix)
    loss.backward()
    return loss.item(), {name: state[name].grad for name in sorted(trained)}


@pytest.mark.parametrize(("backbone", "norm_pix"), [(VIT, True), (VIT, False), (POOLED, True)])
def test_a_step_equals_one_worked_out_token_by_token(backbone, norm_pix, tmp_path):
    learner = mae(backbone=backbone, made=Recorded, norm_pix=norm_pix, eps=1e-3, lr=1e-2)
    micro.run(learner, micro.cropped(learner, micro.subset(tmp_path / "images", IMAGES), BATCH), tmp_path)
    for step in (0, STEPS - 1):
        loss, gradients = checked(learner, step)
        assert learner.losses[step] == pytest.approx(loss, rel=1e-5)
        if step == 0:
            expected = adamw_step(learner, learner.before[0], gradients, rate=learner.rates[0][0])
            for name, value in expected.items():
                torch.testing.assert_close(learner.before[1][name].double(), value, rtol=1e-5, atol=2e-7)
    assert torch.equal(learner.state_dict()["vit.pos_embed"], learner.before[0]["vit.pos_embed"])


def test_gradients_equal_those_of_the_reference(tmp_path):
    learner = mae(made=Recorded, steps=1)
    micro.run(learner, micro.cropped(learner, micro.subset(tmp_path / "images", IMAGES), BATCH), tmp_path)
    _, expected = checked(learner, 0)
    learner.load_state_dict(learner.before[0])
    learner.zero_grad()
    images = learner.views(learner.batches[0], 0)
    learner.reconstruct(learner.vit, images, draw_masks(3, 0, BATCH, 16, 12))[1].mean().backward()
    for name, gradient in expected.items():
        found = learner.get_parameter(name).grad.double()
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


def test_the_encoder_sees_only_what_is_kept():
    learner, seen = mae(), []
    learner.vit.blocks.register_forward_pre_hook(lambda module, tokens: seen.append(tokens[0].shape))
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator(0))
    mask = draw_masks(0, 0, BATCH, GRID**2, GRID**2 - KEPT)
    features, losses, _ = learner.reconstruct(learner.vit, images, mask)
    assert seen == [(BATCH, 1 + KEPT, WIDTH)]
    hidden = mask.unflatten(1, (GRID, GRID)).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2).unsqueeze(1)
    again, other, _ = learner.reconstruct(learner.vit, torch.where(hidden, images.flip(0), images), mask)
    assert torch.equal(again, features)
    assert not torch.allclose(other, losses)


def test_pixels_of_patches_are_cut_row_by_row_and_normalised_patch_by_patch():
    images = torch.randn(2, 3, 16, 16, generator=generator(0))
    cut = patch_pixels(images, 4)
    assert torch.equal(cut[1, 6], images[1, :, 4:8, 8:12].permute(1, 2, 0).flatten())
    scaled = normalised(cut)
    assert scaled.mean(dim=2).abs().max() < 1e-5
    torch.testing.assert_close(scaled.square().mean(dim=2), torch.full((2, 16), 47 / 48), rtol=1e-4, atol=1e-4)
    flat = normalised(torch.full((1, 1, 48), 0.7))
    assert flat.abs().max() < 1e-3  # a patch of one colour has nothing to predict


def test_at_another_side_positions_are_interpolated_from_the_networks_own(tmp_path):
    learner = mae(side=16, store_side=16, mask_ratio=0.5, steps=2)
    assert learner.vit.pos_embed.shape == (1, 17, WIDTH)
    micro.run(learner, micro.cropped(learner, micro.subset(tmp_path / "images", IMAGES), BATCH), tmp_path)
    assert learner.health()["loss_over_chance"] > 0


# The optimiser, and what is learnt


def test_class_and_mask_token_decay_and_one_dimensional_weights_do_not():
    learner = mae()
    decayed, plain = learner.configure_optimizers().param_groups
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    of = [{names[id(each)] for each in group["params"]} for group in (decayed, plain)]
    assert {"vit.cls_token", "decoder.mask_token", "vit.blocks.0.attn.qkv.weight", "decoder.head.weight"} <= of[0]
    assert all(learner.get_parameter(name).ndim > 1 for name in of[0])
    assert all(learner.get_parameter(name).ndim == 1 for name in of[1])
    assert "vit.pos_embed" not in of[0] | of[1]
    assert decayed["betas"] == (0.9, 0.95)


def test_rates_are_per_256_images_from_zero_to_zero():
    recipe = compose.experiment(["pretrain=mae_vit_b16", "backbone=vit_b16"]).pretrain
    with torch.device("meta"):
        learner = MAE(recipe, Backbone("vit_base_patch16_224"), seed=0, length=Length(800, 1))
    assert learner.lr(0) == 0
    assert learner.lr(40) == pytest.approx(2.4e-3)
    assert learner.lr(20) == pytest.approx(1.2e-3)
    assert learner.lr(420) == pytest.approx(1.2e-3)
    assert learner.lr(800) == pytest.approx(0, abs=1e-12)
    assert recipe.clip is None


def test_few_images_are_learnt_by_heart(tmp_path):
    losses, share = by_heart(partial(mae, made=Recorded), tmp_path, lr=5e-3, decoder_width=32)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert share[-1] < 0.85


# What it leaves


@pytest.mark.parametrize("backbone", [VIT, POOLED])
def test_the_saved_backbone_is_an_ordinary_vit_that_holds_the_fixed_positions(backbone, tmp_path):
    packed = micro.subset(tmp_path / "images", IMAGES)
    recipe = mae().recipe
    training = Pretraining(recipe, backbone, packed, 0, Length(STEPS, 3), {}, tmp_path, "test", no_loggers, list)
    learner = training.run(micro.MACHINE)
    args = sized_args(backbone.name, backbone.args, SIDE)
    save_backbone(learner.encoder, tmp_path / "backbone", backbone.name, args, {})
    network = timm.create_model(f"local-dir:{tmp_path / 'backbone'}", pretrained=True, num_classes=0).eval()
    assert torch.equal(network.pos_embed[0, 1:], sincos(WIDTH, GRID, GRID))
    assert (network.pos_embed[0, 0] == 0).all()
    assert network.pos_embed.requires_grad
    images = torch.randn(2, 3, SIDE, SIDE, generator=generator(0))
    ours = build(backbone.name, backbone.args)
    load_backbone(ours, tmp_path / "backbone" / "model.safetensors")
    with torch.no_grad():
        found, expected = network(images), ours.eval()(images)
    torch.testing.assert_close(found, expected)
    if backbone is POOLED:  # the mean of the patch tokens and a fresh norm, as MAE is fine-tuned
        assert (network.fc_norm.weight == 1).all()
        assert (network.fc_norm.bias == 0).all()
        with torch.no_grad():
            mean = network.blocks(network._pos_embed(network.patch_embed(images)))[:, 1:].mean(dim=1)
            torch.testing.assert_close(nn.functional.layer_norm(mean, (WIDTH,), eps=1e-6), found)
