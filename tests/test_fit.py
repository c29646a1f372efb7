"""A training goes on where it was stopped, bit for bit, and never ends as if nothing had happened."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from sept.config import Finetune, IBotRecipe, Model, Pretrain
from sept.data.loading import StepSampler, loader, steps_per_epoch
from sept.data.subset import Subset, write_subset
from sept.data.views import CroppedSubset
from sept.errors import DataError, Interrupted, NonFiniteError, StorageError
from sept.fit import Checkpoint, fit
from sept.learners.base import Learner
from sept.learners.classifier import Classifier
from sept.learners.ibot import IBot
from sept.learners.moby import MoBy
from sept.machine import Machine
from sept.store import CHECKPOINTS

IMAGES, BATCH, EPOCHS, CLASSES = 24, 8, 2, 3
STEPS = IMAGES // BATCH * EPOCHS
SWIN = Model(
    "swin_tiny_patch4_window7_224",
    {"img_size": 16, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]},
)
VIT = Model("vit_small_patch16_224", {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2})
PER_EPOCH = steps_per_epoch(IMAGES, BATCH)

Job = Callable[[Path, Machine], Learner]


def moby(lr: float = 1e-2) -> MoBy:
    recipe = Pretrain(
        model=SWIN,
        side=16,
        batch_size=BATCH,
        lr=lr,
        lr_batch=BATCH,
        warmup_epochs=1,
        queue=2 * BATCH,
        hidden_dim=16,
        out_dim=8,
    )
    return MoBy(recipe, seed=3, epochs=EPOCHS, steps_per_epoch=PER_EPOCH)


def ibot() -> IBot:
    recipe = IBotRecipe(
        epochs=EPOCHS,
        batch_size=BATCH,
        lr=1e-2,
        warmup_epochs=1,
        momentum=0.9,
        out_dim=16,
        head_hidden_dim=16,
        head_bottleneck_dim=8,
        warmup_teacher_temp_epochs=1,
        side=16,
        local_crops=1,
        local_side=8,
    )
    return IBot(recipe, VIT, seed=3, steps_per_epoch=PER_EPOCH)


def classifier() -> Classifier:
    recipe = Finetune(side=16, epochs=EPOCHS, batch_size=BATCH, lr=1e-2, lr_batch=BATCH, warmup_epochs=1)
    return Classifier(recipe, SWIN, CLASSES, None, seed=3, steps_per_epoch=PER_EPOCH)


class Labelled(Dataset):
    """Random images with labels, by (epoch, sample) for training and by sample for tests."""

    def __getitem__(self, place: Any) -> dict[str, Any]:
        epoch, sample = place if isinstance(place, tuple) else (99, place)
        pixels = np.random.default_rng((epoch, sample)).integers(0, 255, (3, 16, 16), dtype=np.uint8)
        return {"images": torch.from_numpy(pixels), "labels": sample % CLASSES}


def train(folder: Path, machine: Machine, make: Callable[[], Learner], edit: Callable[[Learner], None] | None) -> Learner:
    """Train to the end in `folder`; `edit` may prepare an accident."""
    learner = make()
    if edit is not None:
        edit(learner)
    dataset = Labelled() if isinstance(learner, Classifier) else CroppedSubset(Subset.open(folder.parent), learner.views)
    tests = loader(Labelled(), [list(range(BATCH))], machine.workers) if isinstance(learner, Classifier) else None

    def batches(first: int) -> DataLoader:
        sampler = StepSampler(seed=3, samples=IMAGES, batch_size=BATCH, first=first, last=learner.steps)
        return loader(dataset, sampler, machine.workers)

    fit(learner, batches, folder, machine, what="train", loggers=[], tests=tests, test_every=PER_EPOCH)
    return learner


def train_and_keep(folder: Path, machine: Machine, make: Callable[[], Learner], edit: Any) -> None:
    torch.save(train(folder, machine, make, edit).state_dict(), folder / "result.pt")


def die_in(hook: str, step: int, learner: Learner) -> None:
    """SIGKILL when `hook` of the learner is called at `step`."""
    hooked = getattr(learner, hook)

    def die(*args: Any) -> Any:
        if learner.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return hooked(*args)

    setattr(learner, hook, die)


def die_at(call: str, count: int, learner: Learner) -> None:
    """SIGKILL instead of the `count`th call of a function of `os`."""
    real, calls = getattr(os, call), []

    def die(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    setattr(os, call, die)


def machine(**settings: Any) -> Machine:
    return Machine(**{"checkpoint_every_s": 0.0, **settings})


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with torch and lightning already imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning", "timm", "sept.fit", "sept.learners.ibot", "sept.learners.moby"])
    return context


@pytest.fixture
def folder(tmp_path) -> Path:
    """An unfinished artefact's folder; the images are in its parent."""
    rng = np.random.default_rng(0)
    images = ((n, rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)) for n in range(IMAGES))
    write_subset(tmp_path, images, 20)
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def result(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "result.pt", weights_only=True)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("make", [moby, ibot, classifier])
def test_killed_and_resumed_equals_never_killed(make, folder, processes):
    expected = train(folder, machine(), make, None).state_dict()
    resumed = folder.parent / "resumed"
    resumed.mkdir()
    accidents = [
        partial(die_in, "training_step", 0),
        partial(die_in, "on_train_batch_end", 2),
        partial(die_in, "on_before_optimizer_step", 4),
        partial(die_in, "on_train_batch_end", STEPS),
        None,
    ]
    exits = []
    for accident in accidents:
        process = processes.Process(target=train_and_keep, args=(resumed, machine(), make, accident))
        process.start()
        process.join()
        exits.append(process.exitcode)
    assert exits == [-signal.SIGKILL] * 4 + [0]
    assert_same(result(resumed), expected)


@pytest.mark.parametrize(("call", "count"), [("fsync", 1), ("replace", 1), ("fsync", 3), ("replace", 2), ("unlink", 1)])
def test_a_kill_while_a_checkpoint_is_written_loses_nothing(call, count, folder, processes):
    expected = train(folder, machine(), moby, None).state_dict()
    resumed = folder.parent / "resumed"
    resumed.mkdir()
    for accident in (partial(die_at, call, count), None):
        process = processes.Process(target=train_and_keep, args=(resumed, machine(), moby, accident))
        process.start()
        process.join()
    assert_same(result(resumed), expected)
