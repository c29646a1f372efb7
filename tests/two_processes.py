"""A training by one process and by two that share every batch, and what has to be alike: asked of every method."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lightning as L
import micro
import pytest
import torch
from forking import forking

from sept.data.subset import Subset
from sept.methods.recipe import Length
from sept.methods.training import Pretraining
from sept.runtime.hardware import Runtime, no_loggers
from sept.training import distributed

IMAGES, BATCH, STEPS = 24, 8, 6
ONE, TWO = Runtime(threads=1, checkpoint_every_s=0), Runtime(threads=2, devices=2, checkpoint_every_s=0)
SMALL_RATE = 1e-4  # float32 sums differ in their last digits, which AdamW's first steps blow up to the rate
PLACES = [("one", 0), ("two", 0), ("two", 1)]  # folder and rank
State = dict[str, torch.Tensor]


class Recorder(L.Callback):
    """Leaves the mean loss of every step, and the buffers after it, in a file of each rank."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, learner, outputs, batch, batch_idx):
        buffers = {name: value.clone() for name, value in learner.named_buffers()}
        loss = trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")
        torch.save({"loss": loss, **buffers}, self.folder / f"{trainer.global_rank}-{learner.step}.pt")


def recorders(folder: Path) -> list[L.Callback]:
    return [Recorder(folder)]


def recorded(folder: Path, rank: int, step: int) -> State:
    return torch.load(folder / f"{rank}-{step}.pt", weights_only=True)


def training(recipe, backbone, folder: Path, packed: Subset | None = None, watchers=None) -> Pretraining:
    """packed: its images; random ones, beside its folder, if none are given."""
    packed = packed or micro.subset(folder.parent / "images", IMAGES)
    folder.mkdir(exist_ok=True)
    length, watchers = Length(STEPS, IMAGES // BATCH), watchers or partial(recorders, folder)
    return Pretraining(recipe, backbone, packed, 3, length, {}, folder, "train", no_loggers, watchers)


@contextmanager
def imported() -> Iterator[None]:
    """Processes of a training start with what they import imported."""
    context = forking()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "spawn", lambda job: context)
        yield


def trained(recipe, backbone, folder: Path, packed: Subset | None = None) -> tuple[State, State]:
    """The states in which one process and two end, which leave in `folder` what `assert_alike` reads."""
    with imported():
        one, two = (
            training(recipe, backbone, folder / place, packed).run(runtime).state_dict()
            for place, runtime in (("one", ONE), ("two", TWO))
        )
    return one, two


def assert_alike(folder: Path, one: State, two: State) -> None:
    """Losses and buffers of every step, of every process, and the weights at the end."""
    for step in range(1, STEPS + 1):
        alone, first, second = (recorded(folder / place, rank, step) for place, rank in PLACES)
        assert first["loss"].item() == pytest.approx(alone["loss"].item(), rel=1e-5 if step == 1 else 1e-3)
        assert first.keys() == alone.keys()
        for name, value in alone.items():
            close = {"rtol": 1e-5, "atol": 1e-6} if step == 1 else {"rtol": 1e-3, "atol": 1e-3}
            torch.testing.assert_close(first[name], value, **close, msg=lambda text, name=name: f"{name}: {text}")
            torch.testing.assert_close(second[name], first[name], **close)
    assert [name for name in one if not torch.allclose(two[name].double(), one[name].double(), atol=2e-3)] == []
