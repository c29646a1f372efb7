"""A training goes on where it was stopped, bit for bit, and never ends as if nothing had happened."""

import csv
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import micro
import numpy as np
import pytest
import torch
from conftest import mostly_slow
from forking import forking
from torch.utils.data import Dataset

from sept.data import steps_per_epoch
from sept.data.loading import Batches, loader
from sept.data.subset import Subset
from sept.errors import DataError, Interrupted, NonFiniteError, SeptError, StorageError
from sept.methods.dino.learner import Dino
from sept.methods.ibot.learner import IBot
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.methods.views import CroppedSubset
from sept.runtime.hardware import Runtime
from sept.runtime.signals import raising
from sept.store import CHECKPOINTS, Step, Store
from sept.training.callbacks import EvaluateEvery
from sept.training.learner import Learner
from sept.training.loop import Checkpoint, train
from sept.transfer.classify import Classifier

IMAGES, BATCH, EPOCHS, CLASSES = 24, 8, 2, 3
PER_EPOCH = steps_per_epoch(IMAGES, BATCH)
STEPS = PER_EPOCH * EPOCHS


def moby() -> MoBy:
    recipe = micro.moby(batch_size=BATCH, queue=2 * BATCH, warmup_epochs=1, drop_path_rate=0.2)
    return MoBy(recipe, micro.SWIN, seed=3, length=Length(EPOCHS * PER_EPOCH, PER_EPOCH))


def dino() -> Dino:
    recipe = micro.dino(batch_size=BATCH, warmup_epochs=1, drop_path_rate=0.2)
    return Dino(recipe, micro.SWIN, seed=3, length=Length(EPOCHS * PER_EPOCH, PER_EPOCH))


def ibot() -> IBot:
    recipe = micro.ibot(batch_size=BATCH, warmup_epochs=1, drop_path_rate=0.2)
    return IBot(recipe, micro.VIT, seed=3, length=Length(EPOCHS * PER_EPOCH, PER_EPOCH))


def classifier() -> Classifier:
    recipe = micro.finetune(epochs=EPOCHS, batch_size=BATCH, warmup_epochs=1, drop_path_rate=0.2)
    return Classifier(recipe, micro.SWIN, CLASSES, None, seed=3, steps_per_epoch=PER_EPOCH)


class Labelled(Dataset):
    """Random images with labels, by (epoch, sample) for training and by sample for tests; while a file `stop` is there,
    the trainer gets a SIGTERM, and the worker dies, before an image of the second epoch."""

    def __init__(self, folder: Path) -> None:
        self.stop, self.trainer = folder / "stop", os.getpid()

    def __getitem__(self, place: Any) -> dict[str, Any]:
        epoch, sample = place if isinstance(place, tuple) else (99, place)
        if epoch == 1 and self.stop.exists():
            os.kill(self.trainer, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGKILL)
        pixels = np.random.default_rng((epoch, sample)).integers(0, 255, (3, micro.SIDE, micro.SIDE), dtype=np.uint8)
        return {"images": torch.from_numpy(pixels), "labels": sample % CLASSES}


def train_learner(
    folder: Path,
    runtime: Runtime,
    make: Callable[[], Learner],
    accident: Callable[[Learner], None] | None = None,
    images: Path | None = None,
    test_every: int = PER_EPOCH,
) -> Learner:
    """Train to the end in `folder` on the subset in `images`; `accident` may prepare one."""
    learner = make()
    if accident is not None:
        accident(learner)
    labelled = isinstance(learner, Classifier)
    subset = Subset.open(images or next(each for each in folder.parents if (each / "pixels.bin").exists()))
    dataset = Labelled(folder) if labelled else CroppedSubset(subset, learner.views)
    tests = loader(Labelled(folder), [list(range(BATCH))], runtime.workers) if labelled else None
    watchers = [EvaluateEvery(tests, test_every)] if tests is not None else []
    train(learner, Batches(dataset, IMAGES, BATCH, 3), folder, runtime, what="train", watchers=watchers)
    return learner


def train_and_keep(folder: Path, runtime: Runtime, make: Callable[[], Learner], accident: Any) -> None:
    """The whole of a process: exits as `train.py` would."""
    try:
        torch.save(train_learner(folder, runtime, make, accident).state_dict(), folder / "result.pt")
    except SeptError as error:
        sys.exit(error.exit_code)


def before(hook: str, step: int, act: Callable[[Learner], Any], learner: Learner) -> None:
    """Have `act` done when `hook` of the learner is called at `step`."""
    hooked = getattr(learner, hook)

    def acting(*args: Any) -> Any:
        if learner.step == step:
            act(learner)
        return hooked(*args)

    setattr(learner, hook, acting)


def before_call(name: str, count: int, act: Callable[[], Any], learner: Learner) -> None:
    """Have `act` done before the `count`th call of a function of `os`."""
    real, calls = getattr(os, name), []

    def acting(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == count:
            act()
        return real(*args, **options)

    setattr(os, name, acting)


def kill(number: int, learner: Learner | None = None) -> None:
    os.kill(os.getpid(), number)


def fill_disk(learner: Learner) -> None:
    """Files may grow to 10 kB from now on."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def spoil_weight(learner: Learner) -> None:
    next(learner.parameters()).data.fill_(float("nan"))


def spoil_queue(learner: Learner) -> None:
    """What the loss of this step no longer reads."""
    learner.queue.keys[0, 0] = float("inf")


def runtime(**settings: Any) -> Runtime:
    return Runtime(**{"checkpoint_every_s": 0.0, **settings})


@pytest.fixture(scope="module")
def processes():
    return forking()


@pytest.fixture
def folder(tmp_path) -> Path:
    """An unfinished artefact's folder; the images are in its parent."""
    micro.subset(tmp_path, IMAGES)
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[Callable[[], Learner]], dict[str, torch.Tensor]]:
    """The state in which a training of a learner ends that nothing disturbs, on the same images; trained once."""

    @cache
    def end(make: Callable[[], Learner]) -> dict[str, torch.Tensor]:
        folder = tmp_path_factory.mktemp("whole")
        micro.subset(folder, IMAGES)
        return train_learner(folder / "whole", runtime(), make).state_dict()

    return end


def result(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "result.pt", weights_only=True)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def run_each(accidents: list[Any], folder: Path, runtime: Runtime, make: Callable[[], Learner], processes: Any) -> list:
    """Exit codes of the same command run once for each accident, one after the other."""
    exits = []
    for accident in accidents:
        process = processes.Process(target=train_and_keep, args=(folder, runtime, make, accident))
        process.start()
        process.join()
        exits.append(process.exitcode)
    return exits


@pytest.mark.parametrize("make", mostly_slow([moby, ibot, dino, classifier], kept=2))
def test_killed_and_resumed_equals_never_killed(make, folder, whole, processes):
    die = partial(kill, signal.SIGKILL)
    accidents = [
        partial(before, "training_step", 0, die),
        partial(before, "on_train_batch_end", 2, die),
        partial(before, "on_before_optimizer_step", 4, die),
        partial(before, "on_train_batch_end", STEPS, die),
        None,
    ]
    assert run_each(accidents, folder, runtime(), make, processes) == [-signal.SIGKILL] * 4 + [0]
    assert_same(result(folder), whole(make))


@pytest.mark.parametrize(("call", "count"), [("replace", 1), ("replace", 2), ("fsync", 3), ("fsync", 4), ("unlink", 1)])
def test_a_kill_while_a_checkpoint_is_written_loses_nothing(call, count, folder, whole, processes):
    accident = partial(before_call, call, count, partial(kill, signal.SIGKILL))
    assert run_each([accident, None], folder, runtime(), moby, processes) == [-signal.SIGKILL, 0]
    assert_same(result(folder), whole(moby))


def test_workers_change_nothing_even_when_a_signal_ends_them(folder, whole, processes):
    seldom = runtime(workers=2, checkpoint_every_s=1e9)
    (folder / "stop").touch()
    with pytest.raises(Interrupted, match="saved"):
        train_learner(folder, seldom, classifier)
    (folder / "stop").unlink()
    assert 0 < Checkpoint(folder / CHECKPOINTS).load()["step"] <= PER_EPOCH
    assert_same(train_learner(folder, seldom, classifier).state_dict(), whole(classifier))


class Group(Dataset):
    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"group": os.getpgrp()}


def test_workers_are_not_in_the_group_that_ctrl_c_signals(processes):
    batches = list(loader(Group(), [[0], [0]], 1))  # a single batch needs no worker
    assert all(batch["group"].item() != os.getpgrp() for batch in batches)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_interrupts_after_the_running_step(number, folder, whole):
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match=rf"{number.name} after step 3 of {STEPS}, saved"):
        train_learner(
            folder, runtime(checkpoint_every_s=1e9), moby, partial(before, "training_step", 2, partial(kill, number))
        )
    assert signal.getsignal(number) == handler
    assert Checkpoint(folder / CHECKPOINTS).load()["step"] == 3
    assert_same(train_learner(folder, runtime(), moby).state_dict(), whole(moby))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_outside_a_training_a_signal_interrupts_at_once(number):
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"stopped by {number.name}; the same command"), raising():
        kill(number)
    assert signal.getsignal(number) == handler


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:999] + b"\0" + data[1000:]])
def test_a_torn_or_altered_checkpoint_is_refused(damage, folder):
    train_learner(folder, runtime(), classifier)
    [path] = (folder / CHECKPOINTS).iterdir()
    data = path.read_bytes()
    assert damage(data) != data
    path.write_bytes(damage(data))
    with pytest.raises(DataError, match=f"{path} is damaged; delete its folder"):
        train_learner(folder, runtime(), classifier)


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint_before(folder, processes):
    accident = partial(before, "training_step", 2, fill_disk)
    assert run_each([accident], folder, runtime(), moby, processes) == [StorageError.exit_code]
    assert Checkpoint(folder / CHECKPOINTS).load()["step"] == 2
    assert [path.suffix for path in (folder / CHECKPOINTS).iterdir()] == [".pt"]


@pytest.mark.parametrize(
    ("spoil", "message"), [(spoil_weight, "the loss of step 2 is nan"), (spoil_queue, "queue.keys is no longer finite")]
)
def test_what_is_not_finite_stops_the_run_and_publishes_nothing(spoil, message, folder, tmp_path):
    hook = "training_step" if spoil is spoil_weight else "on_before_optimizer_step"

    def build(folder: Path, inputs: Any) -> dict[str, Any]:
        train_learner(folder, runtime(), moby, partial(before, hook, 2, spoil), images=tmp_path)
        return {}

    store, step = Store(tmp_path / "store"), Step("pretrain", 1, {}, {}, build)
    with pytest.raises(NonFiniteError, match=message):
        store.make(step)
    assert store.find(step) is None
    kept = Checkpoint(store.work_folder(step) / CHECKPOINTS).load()
    assert kept["step"] == 2
    assert all(torch.isfinite(value).all() for value in kept["learner"].values() if value.is_floating_point())


def test_curves_number_the_steps_of_the_whole_training_and_hold_every_test(folder):
    with pytest.raises(Interrupted):
        train_learner(folder, runtime(), classifier, partial(before, "training_step", 3, partial(kill, signal.SIGTERM)))
    learner = train_learner(folder, runtime(), classifier)
    first, second = (
        list(csv.DictReader((folder / "curves" / name / "metrics.csv").read_text().splitlines()))
        for name in ("attempt-0", "attempt-1")
    )
    assert [(row["step"], bool(row["best_top1"])) for row in first] == [("3", True)]
    assert [(row["step"], bool(row["best_top1"])) for row in second] == [("6", True)]
    assert float(second[-1]["top1"]) == pytest.approx(learner.last.item())
