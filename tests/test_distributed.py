"""Two processes that share every batch train as one does, and end as one does when something happens."""

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import collective
import lightning as L
import micro
import pytest
import torch
from forking import forking

from sept.errors import Interrupted, NonFiniteError, OutOfMemory, ProcessError
from sept.methods.recipe import Length
from sept.methods.training import Pretraining
from sept.runtime.hardware import Runtime, no_loggers
from sept.store import CHECKPOINTS
from sept.training import distributed
from sept.training.loop import Checkpoint

IMAGES, BATCH, STEPS = 24, 8, 6
ONE, TWO = Runtime(threads=1, checkpoint_every_s=0), Runtime(threads=2, devices=2, checkpoint_every_s=0)
SMALL_RATE = 1e-4  # float32 sums differ in their last digits, which AdamW's first steps blow up to the rate


MACHINES = [("one", ONE), ("two", TWO)]
PLACES = [("one", 0), ("two", 0), ("two", 1)]


def moby(**changes):
    recipe = micro.moby(batch_size=BATCH, queue=5 * BATCH // 2, drop_path_rate=0.3, lr=SMALL_RATE, **changes)
    return recipe, micro.SWIN


def dino():
    recipe = micro.dino(batch_size=BATCH, drop_path_rate=0.3, lr=SMALL_RATE, freeze_last_layer_epochs=1)
    return recipe, micro.SWIN


def ibot():
    recipe = micro.ibot(batch_size=BATCH, drop_path_rate=0.3, lr=SMALL_RATE, freeze_last_layer_epochs=1)
    return recipe, micro.VIT


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


def training(what, folder: Path, watchers=None) -> Pretraining:
    packed = micro.subset(folder.parent / "images", IMAGES)
    folder.mkdir(exist_ok=True)
    recipe, backbone = what
    length, watchers = Length(STEPS, IMAGES // BATCH), watchers or partial(recorders, folder)
    return Pretraining(recipe, backbone, packed, 3, length, {}, folder, "train", no_loggers, watchers)


def recorded(folder: Path, rank: int, step: int) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{rank}-{step}.pt", weights_only=True)


@pytest.fixture(scope="module")
def prepared():
    """A way to start the processes of a training with what they import imported; those that fail start as ever."""
    context = forking("sept.methods.training", "sept.training.loop")

    @contextmanager
    def started():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed, "spawn", lambda job: context)
            yield

    return started


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """Folder, and the states in which one process and two ended, by learner."""
    done = {}
    for name, make in (("moby", moby()), ("dino", dino()), ("ibot", ibot())):
        folder = tmp_path_factory.mktemp(name)
        with prepared():
            ends = [training(make, folder / places).run(runtime).state_dict() for places, runtime in MACHINES]
        done[name] = (folder, *ends)
    return done


@pytest.mark.parametrize("name", ["moby", "dino", "ibot"])
def test_two_processes_equal_one(name, trained):
    folder, one, two = trained[name]
    for step in range(1, STEPS + 1):
        alone, first, second = (recorded(folder / places, rank, step) for places, rank in PLACES)
        assert first["loss"].item() == pytest.approx(alone["loss"].item(), rel=1e-6 if step == 1 else 1e-4)
        assert first.keys() == alone.keys()
        for buffer, value in alone.items():
            close = {"rtol": 1e-5, "atol": 1e-6} if step == 1 else {"rtol": 1e-3, "atol": 1e-3}
            torch.testing.assert_close(first[buffer], value, **close, msg=lambda text, name=buffer: f"{name}: {text}")
            torch.testing.assert_close(second[buffer], first[buffer], **close)
    assert [name for name in one if not torch.allclose(two[name].double(), one[name].double(), atol=2e-3)] == []


@pytest.mark.parametrize(
    ("failing", "kind", "told"),
    [
        ("bug", ProcessError, "process 1 of the training failed and the others were ended: RuntimeError: a bug"),
        ("memory", OutOfMemory, "GPU out of memory: tried to allocate 2.00 GiB, 1.20 GiB of the card's"),
        ("kill", Interrupted, "stopped by the end of one of its processes, SIGKILL"),
    ],
)
def test_one_that_fails_while_the_others_wait_for_it_ends_all_and_is_the_reason(failing, kind, told, capfd):
    start = time.monotonic()
    with pytest.raises(kind) as found:
        distributed.run(partial(collective.alone, failing), TWO)
    assert time.monotonic() - start < 60
    assert str(found.value).startswith(told)
    assert len(str(found.value).splitlines()) == 1
    assert ("RuntimeError: a bug" in capfd.readouterr().err) == (failing == "bug")  # with its traceback


@pytest.fixture
def soon(monkeypatch):
    """Those that notice nothing, and would not for minutes, are not waited for long."""
    monkeypatch.setattr(distributed, "GRACE_S", 1.0)


@pytest.mark.usefixtures("soon")
def test_what_one_process_raises_ends_all_and_is_raised():
    with pytest.raises(NonFiniteError, match="the second one failed"):
        distributed.run(collective.fail_on_second, TWO)


@pytest.mark.usefixtures("soon")
def test_a_process_that_is_killed_ends_all():
    with pytest.raises(Interrupted, match="the end of one of its processes, SIGKILL"):
        distributed.run(collective.die_on_second, TWO)


def test_a_signal_is_handed_on():
    with pytest.raises(Interrupted, match="SIGUSR1"):
        distributed.run(collective.interrupt_parent, TWO)


class Signal(L.Callback):
    """Signals the second process alone, in the middle."""

    def on_train_batch_start(self, trainer, learner, batch, batch_idx):
        if trainer.global_rank == 1 and learner.step == STEPS // 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_to_one_process_stops_all_after_the_same_step_and_the_run_goes_on(prepared, trained, tmp_path):
    make, expected = moby(), trained["moby"][2]
    stopped = training(make, tmp_path / "stopped")
    with prepared(), pytest.raises(Interrupted, match=f"after step {STEPS // 2 + 1} of {STEPS}, saved"):
        replace(stopped, watchers=partial(list, [Signal()])).run(TWO)
    state = Checkpoint(tmp_path / "stopped" / CHECKPOINTS).load()
    assert state["step"] == STEPS // 2 + 1
    with prepared():
        found = stopped.run(TWO).state_dict()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
