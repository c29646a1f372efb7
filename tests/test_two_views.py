"""What SimCLR and BYOL have to do as every method does: resume, share batches, chunk, cost what is planned; and their
options."""

import signal
from functools import partial

import micro
import pytest
import test_chunks
import test_fit
import torch
import two_processes
from conftest import mostly_slow
from test_flops import trained as counted

from sept import compose
from sept.compose import options
from sept.errors import Interrupted
from sept.methods.byol.learner import BYOL
from sept.methods.recipe import Length
from sept.methods.simclr.learner import SimCLR
from sept.runtime.named import load

METHODS = {"simclr": (micro.simclr, SimCLR), "byol": (micro.byol, BYOL)}
OPTIONS = [name for name in options("pretrain") if name.startswith(("simclr", "byol"))]


def recipe(method, **changes):
    return METHODS[method][0](**({"momentum": 0.9} if method == "byol" else {}), **changes)


def learner(method, backbone, length, **changes):
    return METHODS[method][1](recipe(method, **changes), backbone, seed=3, length=length)


@pytest.mark.parametrize("optimiser", ["adamw", "lars"])
@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_resumed_equals_never_stopped(method, optimiser, tmp_path):
    settings = {"batch_size": test_fit.BATCH, "drop_path_rate": 0.2, "optimiser": optimiser}
    make = partial(learner, method, micro.SWIN, Length(test_fit.STEPS, test_fit.PER_EPOCH), **settings)
    micro.subset(tmp_path, test_fit.IMAGES)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    for folder in (stopped, whole):
        folder.mkdir()
    stop = partial(test_fit.before, "training_step", 2, partial(test_fit.kill, signal.SIGTERM))
    with pytest.raises(Interrupted):
        test_fit.train_learner(stopped, test_fit.runtime(), make, stop)
    ends = [test_fit.train_learner(folder, test_fit.runtime(), make).state_dict() for folder in (stopped, whole)]
    test_fit.assert_same(*ends)


@pytest.mark.parametrize("method", mostly_slow(METHODS))
def test_two_processes_equal_one(method, tmp_path):
    settings = recipe(method, batch_size=two_processes.BATCH, drop_path_rate=0.3, lr=two_processes.SMALL_RATE)
    two_processes.assert_alike(tmp_path, *two_processes.trained(settings, micro.SWIN, tmp_path))


@pytest.mark.parametrize("method", METHODS)
def test_chunks_change_no_loss_gradient_or_buffer(method, tmp_path):
    settings = {"batch_size": test_chunks.BATCH, "drop_path_rate": 0.3, "lr": 1e-4}
    if method == "simclr":  # at 0.1, the rounding of a gradient that is nought goes past the tolerance
        settings["temperature"] = 1.0
    make = partial(learner, method, micro.SWIN, Length(test_chunks.STEPS, 1), **settings)
    test_chunks.test_chunks_change_no_loss_gradient_or_buffer(make, tmp_path)
    assert make().bytes_beside(16) == 2 * make().bytes_beside(8) > 0


HEADS = [{}, {"projector_layers": 3, "bias": True, "last_norm": "plain"}]


@pytest.mark.usefixtures("unfused")
@pytest.mark.parametrize("backbone", [micro.SWIN, micro.VIT, micro.RESNET], ids=["swin", "vit", "resnet"])
@pytest.mark.parametrize("heads", HEADS, ids=["plain", "deep"])
@pytest.mark.parametrize("method", METHODS)
def test_training_takes_the_flops_that_are_planned(method, heads, backbone, tmp_path):
    made = learner(method, backbone, Length(2, 2), **heads)
    flops = counted(made, micro.cropped(made, micro.subset(tmp_path / "images", 32), 16), tmp_path)
    assert 32 * made.recipe.flops(backbone) == pytest.approx(flops, rel=1e-3)  # the watch for collapse counts little


BACKBONES = ("vit_b16", "vit_s16", "swin_t", "resnet50")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_composes_and_builds_its_learner(name):
    backbone = next((each for each in BACKBONES if name.endswith(each)), "swin_micro")
    e = compose.experiment([f"pretrain={name}", f"backbone={backbone}"])
    made = e.pretrain.fitted(100_000, 300 * (100_000 // e.pretrain.batch_size))
    assert made.flops(e.backbone) > 0
    with torch.device("meta"):
        network = load(made.learner)(made, e.backbone, seed=0, length=Length(100, 10))
    assert network.encoder.num_features > 0
    assert network.lr(50) > 0


def test_published_rates_are_those_of_the_papers():
    def peak(name):
        r = compose.experiment([f"pretrain={name}"]).pretrain
        return r.lr * r.rate_factor

    assert peak("simclr_resnet50") == pytest.approx(4.8)  # also 0.075 sqrt(4096)
    assert peak("simclr_vit_b16") == pytest.approx(3.2e-3)
    assert peak("byol_resnet50") == pytest.approx(4.8)
    assert peak("byol_vit_b16") == pytest.approx(2.4e-3)  # 1.5e-4 per 256
    assert peak("byol_vit_s16") == pytest.approx(6e-4)


def test_simclrs_jitter_is_that_of_its_paper():
    from sept.methods.views import TwoViews

    def strengths(name):
        [first, second] = TwoViews(compose.experiment([f"pretrain={name}"]).pretrain, 0).policies
        return [(p.brightness, p.contrast, p.saturation, p.hue, p.jitter, p.blur, p.solarise) for p in (first, second)]

    assert strengths("simclr_resnet50") == [(0.8, 0.8, 0.8, 0.2, 0.8, 0.5, 0.0)] * 2
    assert strengths("simclr_vit_b16") == [(0.4, 0.4, 0.4, 0.1, 0.8, 0.5, 0.0)] * 2
    plain = (0.4, 0.4, 0.2, 0.1, 0.8)
    assert strengths("byol_resnet50") == [(*plain, 1.0, 0.0), (*plain, 0.1, 0.2)]
