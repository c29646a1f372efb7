"""What MAE and SimMIM share: masks, chunks, several processes, resuming, FLOPs, devices, and the command."""

from functools import partial

import micro
import numpy as np
import pytest
import timm
import torch
from conftest import mostly_slow, run
from hypothesis import given
from hypothesis import strategies as st
from masked import BATCH, IMAGES, MAKES, POOLED, mae, mae_recipe, simmim, simmim_recipe
from micro import SIDE
from test_chunks import trained as trained_in_chunks
from torch.utils.flop_counter import FlopCounterMode
from two_processes import assert_alike
from two_processes import trained as trained_by_two

from sept import compose
from sept.backbones import Backbone
from sept.backbones.flops import blocks_flops, cell_side, forward_flops, is_plain, patch_side, prefix_tokens, stem_flops
from sept.backbones.networks import build
from sept.capability import require
from sept.errors import ConfigError
from sept.gpu.checks import differing, resumed, trained
from sept.gpu.pretended import pretended
from sept.gpu.waits import waits
from sept.methods import masking
from sept.methods.masking import draw_masks
from sept.methods.recipe import Length
from sept.runtime.hardware import Runtime
from sept.runtime.named import load
from sept.training.learner import Chunk, kept_bytes

BF16 = Runtime("cuda", precision="bf16-mixed", threads=1)
OPTIONS = {
    "mae_vit_b16": ["vit_b16", "vit_b16 global_pool=avg"],
    "mae_vit_s16": ["vit_s16"],
    "mae_tiny_vit_b16": ["vit_b16"],
    "mae_micro": ["vit_micro", "vit_micro global_pool=avg"],
    "simmim_swin_t": ["swin_t", "swin_t_192"],
    "simmim_swin_t_224": ["swin_t"],
    "simmim_micro": ["swin_micro"],
}


@pytest.fixture(params=MAKES)
def make(request):
    return MAKES[request.param]


# Masks


@given(st.integers(1, 6), st.integers(1, 30), st.data())
def test_each_image_hides_as_many_places(images, places, data):
    hidden = data.draw(st.integers(0, places))
    masks = draw_masks(0, 1, images, places, hidden)
    assert masks.shape == (images, places)
    assert masks.sum(dim=1).tolist() == [hidden] * images


def test_masks_depend_on_seed_step_and_position_alone_and_hide_every_place_alike():
    first = draw_masks(0, 1, 64, 16, 12)
    torch.manual_seed(5)
    assert torch.equal(draw_masks(0, 1, 64, 16, 12), first)
    assert not torch.equal(draw_masks(1, 1, 64, 16, 12), first)
    assert not torch.equal(draw_masks(0, 2, 64, 16, 12), first)
    assert len({tuple(row) for row in first.tolist()}) > 50
    often = torch.cat([draw_masks(0, step, 64, 16, 12) for step in range(40)]).double().mean(dim=0)
    np.testing.assert_allclose(often, 12 / 16, atol=0.04)  # of 2,560: a deviation of 0.009


def test_shares_of_several_processes_are_the_masks_of_one(monkeypatch):
    whole = draw_masks(0, 1, 8, 16, 12)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(masking, "rank_and_world", lambda rank=rank: (rank, 2))
        shares.append(draw_masks(0, 1, 4, 16, 12))
    assert torch.equal(torch.cat(shares), whole)


# Training


def test_a_training_stopped_by_a_signal_goes_on_bit_for_bit(make, tmp_path):
    learners = partial(make, drop_path_rate=0.2, warmup_epochs=1)
    batches = partial(micro.cropped, packed=micro.subset(tmp_path / "images", IMAGES), batch_size=BATCH)
    learner = learners()
    expected = trained(learner, batches(learner), tmp_path / "whole", micro.MACHINE)
    found = resumed(learners, batches, tmp_path / "parts", micro.MACHINE, after=3)
    assert found.losses == expected.losses[3:]
    assert differing(found, expected) == {}


@pytest.mark.parametrize(
    ("recipe", "backbone"),
    [
        (mae_recipe, micro.VIT),
        pytest.param(mae_recipe, POOLED, marks=pytest.mark.slow),
        pytest.param(simmim_recipe, micro.SWIN, marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one(recipe, backbone, tmp_path):
    assert_alike(tmp_path, *trained_by_two(recipe(drop_path_rate=0.3), backbone, tmp_path))


def test_chunks_change_no_loss_gradient_or_buffer(make, tmp_path):
    learners = partial(make, steps=3, drop_path_rate=0.3)
    micro.assert_chunks_change_nothing(partial(trained_in_chunks, learners, tmp_path), BATCH)


def test_chunks_leave_less_for_the_backward_pass_of_the_decoder_too(make):
    learner = make()
    whole = kept_bytes(learner.encode_blank)
    learner.chunk = Chunk(1)
    assert kept_bytes(lambda n: learner.encode_blank(n + 1)) < 0.2 * whole
    assert learner.bytes_beside(16) == 2 * learner.bytes_beside(8) > 0


def test_every_trained_parameter_gets_a_gradient_and_what_is_fixed_none(make, tmp_path):
    gradients = trained_in_chunks(partial(make, steps=1), tmp_path, None)[1]
    learner = make()
    assert gradients.keys() == {name for name, each in learner.named_parameters() if each.requires_grad}
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


def test_the_same_weights_and_losses_follow_from_the_same_seed_whatever_the_global_generator(make):
    torch.manual_seed(0)
    first = make().state_dict()
    torch.manual_seed(1)
    assert all(torch.equal(value, first[name]) for name, value in make().state_dict().items())


@pytest.mark.parametrize("make", mostly_slow(MAKES), indirect=True)
def test_a_learner_on_the_device_ends_as_on_the_cpu_and_bfloat16_stays_close(make, tmp_path):
    packed = micro.subset(tmp_path / "images", IMAGES)

    def ran(name, runtime):
        learner = make()
        return trained(learner, micro.cropped(learner, packed, BATCH), tmp_path / name, runtime)

    expected = ran("cpu", micro.MACHINE)
    with pretended():
        found, lower = ran("cuda", Runtime("cuda", threads=1)), ran("bf16", BF16)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-3)
    assert max(differing(found, expected).values(), default=0) < 5e-3
    assert lower.losses != expected.losses
    np.testing.assert_allclose(lower.losses, expected.losses, rtol=0.05)


@pytest.mark.parametrize("make", mostly_slow(MAKES), indirect=True)
def test_a_step_waits_for_the_device_twice_at_most(make, tmp_path):
    learner = make()
    steps = waits(learner, micro.cropped(learner, micro.subset(tmp_path / "images", IMAGES), BATCH))
    assert steps.total <= 2, steps.where


# FLOPs


def test_training_takes_the_flops_that_are_planned(make, tmp_path, unfused):
    learner = make(steps=2)
    packed = micro.subset(tmp_path / "images", 2 * BATCH)
    with FlopCounterMode(display=False) as counter:
        micro.run(learner, micro.cropped(learner, packed, BATCH), tmp_path)
    backbone = {"MAE": micro.VIT, "SimMIM": micro.SWIN}[type(learner).__name__]
    assert 2 * BATCH * learner.recipe.flops(backbone) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def step_flops(recipe, backbone):
    """Counted by torch, of one image forward and backward, on tensors without data."""
    with torch.device("meta"):
        learner = load(recipe.learner)(recipe, backbone, seed=0, length=Length(1, 1))
    mask = torch.arange(learner.places, device="meta").expand(1, -1) < learner.hidden
    images = torch.empty(1, 3, recipe.side, recipe.side, device="meta")
    with FlopCounterMode(display=False) as counter:
        learner.reconstruct(learner.encoder, images, mask)[1].sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(("option", "network"), [(option, each) for option, of in OPTIONS.items() for each in of])
def test_every_option_composes_is_made_and_costs_what_is_planned(option, network, unfused):
    name, *args = network.split()
    e = compose.experiment([f"pretrain={option}", f"backbone={name}", *(f"backbone.args.{each}" for each in args)])
    assert e.pretrain.name == option
    assert e.pretrain.flops(e.backbone) == pytest.approx(step_flops(e.pretrain, e.backbone), rel=1e-3)


def test_costs_at_full_size_are_those_of_the_papers_sizes():
    """Counted independently, in GFLOP an image; MAE of a ViT-S with ViT-B's decoder costs 4.2 passes of the encoder."""
    for option, backbone, expected in (
        ("mae_vit_b16", "vit_b16", 58.5),
        ("mae_tiny_vit_b16", "vit_b16", 18.5),
        ("mae_vit_b16", "vit_s16", 38.9),
    ):
        e = compose.experiment([f"pretrain={option}", f"backbone={backbone}"])
        assert e.pretrain.flops(e.backbone) / 1e9 == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    "backbone",
    [
        Backbone("vit_tiny_patch16_224"),  # of no known shape
        Backbone(micro.VIT.name, micro.VIT.args | {"reg_tokens": 2}),
    ],
)
def test_mae_of_a_vit_without_closed_form_is_measured(backbone, unfused):
    side = backbone.args.get("img_size", 224)
    recipe = mae_recipe(side=side)
    assert recipe.flops(backbone) == pytest.approx(step_flops(recipe, backbone), rel=1e-3)
    assert prefix_tokens(backbone) == (3 if backbone.args else 1)


def test_simmim_of_a_swin_without_closed_form_is_measured(unfused):
    recipe, small = simmim_recipe(side=96, mask_unit=32), {"depths": [1, 1, 1, 1]}
    for name in ("swin_small_patch4_window7_224", "swinv2_tiny_window8_256"):
        backbone = Backbone(name, small)
        assert (patch_side(backbone), cell_side(backbone)) == (4, 32)
        assert recipe.flops(backbone) == pytest.approx(step_flops(recipe, backbone), rel=1e-3)


def test_stem_and_blocks_are_the_whole_of_a_vit():
    for backbone in (micro.VIT, POOLED, Backbone("vit_tiny_patch16_224")):
        side = backbone.args.get("img_size", 224)
        patches = (side // patch_side(backbone)) ** 2
        assert stem_flops(backbone, side) + blocks_flops(backbone, patches) == forward_flops(backbone, side)
    assert is_plain(POOLED)  # how tokens are pooled costs nothing
    assert forward_flops(POOLED, SIDE) == forward_flops(micro.VIT, SIDE)
    assert not is_plain(Backbone(micro.VIT.name, micro.VIT.args | {"global_pool": "map"}))


# Settings


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["pretrain=mae_micro"], "backbone.name=swin_tiny_patch4_window7_224 .*: it has no class token"),
        (["pretrain=mae_micro", "backbone=vit_micro", "pretrain.mask_ratio=0.99"], "keeps 0 of the 64 patches"),
        (
            ["pretrain=mae_micro", "backbone=vit_micro", "pretrain.decoder_heads=5"],
            "must be a multiple of pretrain.dec",
        ),
        (["pretrain=mae_micro", "backbone=vit_micro", "pretrain.decoder_width=14"], "must be a multiple of 4, sine"),
        (
            ["pretrain=mae_micro", "backbone=vit_micro", "+backbone.args.pos_embed=none"],
            "it has no embedding of positions",
        ),
        (
            ["pretrain=mae_micro", "backbone=vit_micro", "backbone.args.embed_dim=66"],
            "66 wide: pretrain=mae_micro needs a multiple of 4",
        ),
        (["pretrain=simmim_micro", "backbone=vit_micro"], "it is no Swin"),
        (["pretrain=simmim_micro", "backbone=resnet_micro"], "it is no Swin"),
        (["pretrain=simmim_micro", "pretrain.mask_unit=5"], "mask_unit=5 does not divide pretrain.side=32"),
        (["pretrain=simmim_micro", "pretrain.mask_unit=2"], "no multiple of the patches of swin_tiny.*, 4 pixels"),
        (["pretrain=simmim_micro", "pretrain.mask_ratio=0.95"], "hides all 16 squares"),
        (["pretrain=simmim_micro", "pretrain.side=36", "pretrain.mask_unit=12"], "no multiple of the cells of the la"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_before_any_work(overrides, told):
    with pytest.raises(ConfigError, match=told) as found:
        require(compose.experiment(overrides))
    assert len(str(found.value).splitlines()) == 1


# The command


TINY_RUN = ["pool.images=400", "task.train_per_class=5", "task.test_per_class=3", "budget.images=64", "init=random"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "network", "more"),
    [
        ("mae_micro", "vit_micro", ["backbone.args.global_pool=avg"]),
        ("mae_micro", "vit_micro", []),
        ("simmim_micro", "swin_micro", []),
    ],
)
def test_the_command_trains_and_timm_loads_what_it_saved(option, network, more, tmp_path):
    done = run(
        *(f"pretrain={option}", f"backbone={network}", *TINY_RUN, *more),
        store=tmp_path / "store",
        without=("pretrain", "retriever"),
    )
    assert done.returncode == 0, done.stderr
    assert "top-1" in done.stdout
    [saved] = (tmp_path / "store" / "pretrain").glob("*/backbone")
    network = timm.create_model(f"local-dir:{saved}", pretrained=True, num_classes=3)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_backbones_are_those_of_timm_key_by_key():
    for learner, backbone in ((mae(), micro.VIT), (mae(backbone=POOLED), POOLED), (simmim(), micro.SWIN)):
        assert build(backbone.name, backbone.args).state_dict().keys() == learner.encoder.state_dict().keys()
