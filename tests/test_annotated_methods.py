"""What holds of every method that learns from labels, captions or vectors: it resumes bit for bit, two processes equal
one, chunks change nothing, and its FLOPs are those that are planned."""

import signal
from functools import partial

import annotated
import micro
import pytest
import test_fit as fit
import test_pretended as card
import timm
import torch
import two_processes
from conftest import mostly_slow
from forking import forking
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sept.compose import experiment, options
from sept.data.subset import Joined
from sept.gpu.pretended import pretended
from sept.gpu.waits import waits
from sept.methods.clip.learner import Clip
from sept.methods.distill.learner import Distill
from sept.methods.recipe import Length
from sept.methods.supervised.learner import Supervised
from sept.runtime.named import load
from sept.training.learner import Chunk

RECIPES = {"labels": annotated.supervised, "captions": annotated.clip, "features": annotated.distill}
LEARNERS = {"labels": Supervised, "captions": Clip, "features": Distill}
STEPS, BATCH = 3, 8
LENGTH = Length(STEPS, 1)
each = pytest.mark.parametrize("reads", ["labels", "captions", "features"])
mainly_captions = pytest.mark.parametrize("reads", mostly_slow(["captions", "labels", "features"]))


def learner_of(reads, length=LENGTH, backbone=micro.SWIN, **changes):
    recipe = RECIPES[reads](**{"batch_size": BATCH, "lr_batch": BATCH} | changes)
    return LEARNERS[reads](recipe, backbone, seed=3, length=length)


def resumable(reads):
    return learner_of(reads, length=Length(fit.STEPS, fit.PER_EPOCH), drop_path_rate=0.2, warmup_epochs=1)


@mainly_captions
def test_killed_and_resumed_equals_never_killed(reads, tmp_path):
    annotated.subset(tmp_path, fit.IMAGES, reads)
    folder = tmp_path / "work"
    folder.mkdir()
    make = partial(resumable, reads)
    expected = fit.train_learner(folder / "whole", fit.runtime(), make).state_dict()
    die = partial(fit.kill, signal.SIGKILL)
    accidents = [
        partial(fit.before, "on_train_batch_end", 2, die),
        partial(fit.before, "on_before_optimizer_step", 4, die),
        None,
    ]
    assert fit.run_each(accidents, folder, fit.runtime(), make, forking()) == [-signal.SIGKILL] * 2 + [0]
    fit.assert_same(fit.result(folder), expected)


@mainly_captions
def test_two_processes_equal_one(reads, tmp_path):
    packed = annotated.subset(tmp_path / "images", two_processes.IMAGES, reads)
    size, rate = two_processes.BATCH, two_processes.SMALL_RATE
    recipe = RECIPES[reads](batch_size=size, lr_batch=size, drop_path_rate=0.3, lr=rate)
    two_processes.assert_alike(tmp_path, *two_processes.trained(recipe, micro.SWIN, tmp_path, packed))


@each
def test_chunks_change_no_loss_or_weight(reads, tmp_path):
    packed, found = annotated.subset(tmp_path / "images", 24, reads), {}
    for chunk in (None, Chunk(1), Chunk(2, 4)):
        learner = learner_of(reads, drop_path_rate=0.3, lr=1e-4)
        learner.chunk = chunk
        found[chunk] = micro.run(learner, micro.cropped(learner, packed, BATCH), tmp_path / str(chunk)).state_dict()
    for state in (found[Chunk(1)], found[Chunk(2, 4)]):
        assert [name for name in state if not torch.allclose(state[name], found[None][name], atol=3e-4)] == []


@each
@pytest.mark.parametrize("backbone", [micro.SWIN, micro.VIT])
def test_training_takes_the_flops_that_are_planned(reads, backbone, tmp_path):
    """Captions as long as the context: real ones are cut, and cost less."""
    packed = annotated.subset(tmp_path / "images", 16, reads)
    changes = {"context": 8} if reads == "captions" else {}
    learner = learner_of(reads, length=Length(2, 2), backbone=backbone, **changes)
    timm.layers.set_fused_attn(False)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            micro.run(learner, micro.cropped(learner, packed, BATCH), tmp_path)
    finally:
        timm.layers.set_fused_attn(True)
    assert 2 * BATCH * learner.recipe.flops(backbone) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_short_captions_cost_less_than_is_planned(tmp_path):
    packed = annotated.subset(tmp_path / "images", 16, "captions")
    found = {}
    for context in (40, 80):
        learner = learner_of("captions", length=Length(2, 2), context=context)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            micro.run(learner, micro.cropped(learner, packed, BATCH), tmp_path / str(context))
        found[context] = counter.get_total_flops()
    assert found[40] == found[80]  # none has so many tokens
    assert learner.recipe.flops(micro.SWIN) > found[80] / (2 * BATCH)


@each
def test_the_memory_of_heads_grows_with_the_batch(reads):
    assert learner_of(reads).bytes_beside(16) == 2 * learner_of(reads).bytes_beside(8) > 0


@mainly_captions
def test_a_learner_on_the_device_ends_as_on_the_cpu(reads, tmp_path):
    packed = annotated.subset(tmp_path / "images", 24, reads)
    make = partial(learner_of, reads, length=Length(card.STEPS, 1), drop_path_rate=0.3, lr=1e-4)
    case = card.Case(make, partial(micro.cropped, packed=packed, batch_size=BATCH), card.neighbours)
    expected = card.run(case, tmp_path / "cpu", card.CPU)
    with pretended():
        found = card.run(case, tmp_path / "cuda", card.CUDA)
        lower = card.run(case, tmp_path / "bf16", card.BF16)
    assert found.losses == pytest.approx(expected.losses, rel=1e-3)
    assert max(card.differing(found, expected).values(), default=0.0) < card.CLOSE
    assert lower.losses != expected.losses
    assert lower.losses == pytest.approx(expected.losses, rel=0.05)


@mainly_captions
def test_a_step_waits_for_the_device_twice_at_most(reads, tmp_path):
    learner = learner_of(reads)
    steps = waits(learner, micro.cropped(learner, annotated.subset(tmp_path / "images", 24, reads), BATCH))
    assert steps.total <= 2, steps.where


def test_images_of_a_task_have_no_annotations(tmp_path):
    packed = annotated.subset(tmp_path, 4, "labels")
    assert packed.annotation(1) == {"label": 1}
    assert Joined([packed, packed]).annotation(1) == {}


BACKBONES = {
    "vit_b16": "vit_b16",
    "vit_s16": "vit_s16",
    "swin_t": "swin_t",
    "resnet50": "resnet50",
    "micro": "vit_micro",
}
OWN = [name for name in options("pretrain") if name.startswith(("supervised_", "clip_", "distill_"))]


@pytest.mark.parametrize("option", OWN)
def test_every_option_composes_and_builds_its_learner(option):
    backbone = BACKBONES[option.partition("_")[2]]
    needed = ["budget.images=10000", "pool.captions=from_labels"]
    e = experiment([f"pretrain={option}", f"backbone={backbone}", *needed])
    recipe = e.pretrain.of_classes(1000).of_width(384)
    assert recipe.flops(e.backbone) >= e.pretrain.flops(e.backbone) > 0
    with torch.device("meta"):
        learner = load(recipe.learner)(recipe, e.backbone, seed=0, length=Length(100, 10))
    assert learner.lr(50) > 0
    assert sum(len(group["params"]) for group in learner.configure_optimizers().param_groups) == len(
        list(learner.parameters())
    )


def test_there_is_an_option_of_each_published_backbone():
    assert {*OWN} == {f"{method}_{backbone}" for method in ("supervised", "clip", "distill") for backbone in BACKBONES}
