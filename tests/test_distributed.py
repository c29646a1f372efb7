"""Two processes that share every batch train as one does, and end as one does when something happens."""

import os
import signal
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import collective
import lightning as L
import micro
import pytest
import torch
from two_processes import BATCH, SMALL_RATE, STEPS, TWO, assert_alike, imported, trained, training

from sept.errors import Interrupted, NonFiniteError, OutOfMemory, ProcessError
from sept.store import CHECKPOINTS
from sept.training import distributed
from sept.training.loop import Checkpoint


def moby(**changes):
    recipe = micro.moby(batch_size=BATCH, queue=5 * BATCH // 2, drop_path_rate=0.3, lr=SMALL_RATE, **changes)
    return recipe, micro.SWIN


def dino():
    recipe = micro.dino(batch_size=BATCH, drop_path_rate=0.3, lr=SMALL_RATE, freeze_prototypes_epochs=1)
    return recipe, micro.SWIN


def ibot():
    recipe = micro.ibot(batch_size=BATCH, drop_path_rate=0.3, lr=SMALL_RATE, freeze_prototypes_epochs=1)
    return recipe, micro.VIT


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Folder, and the states in which one process and two ended, by learner."""
    done = {}
    for name, make in (("moby", moby()), ("dino", dino()), ("ibot", ibot())):
        folder = tmp_path_factory.mktemp(name)
        done[name] = (folder, *trained(*make, folder))
    return done


@pytest.mark.parametrize("name", ["moby", "dino", "ibot"])
def test_two_processes_equal_one(name, ends):
    assert_alike(*ends[name])


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
    with nullcontext() if failing == "bug" else imported(), pytest.raises(kind) as found:
        distributed.run(partial(collective.alone, failing), TWO)
    assert time.monotonic() - start < 60
    assert str(found.value).startswith(told)
    assert len(str(found.value).splitlines()) == 1
    assert ("RuntimeError: a bug" in capfd.readouterr().err) == (failing == "bug")  # with its traceback


@pytest.fixture
def soon(monkeypatch):
    """Those that notice nothing, and would not for minutes, are not waited for long."""
    monkeypatch.setattr(distributed, "GRACE_S", 1.0)
    with imported():
        yield


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


def test_a_signal_to_one_process_stops_all_after_the_same_step_and_the_run_goes_on(ends, tmp_path):
    expected = ends["moby"][2]
    stopped = training(*moby(), tmp_path / "stopped")
    with imported(), pytest.raises(Interrupted, match=f"after step {STEPS // 2 + 1} of {STEPS}, saved"):
        replace(stopped, watchers=partial(list, [Signal()])).run(TWO)
    state = Checkpoint(tmp_path / "stopped" / CHECKPOINTS).load()
    assert state["step"] == STEPS // 2 + 1
    with imported():
        found = stopped.run(TWO).state_dict()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
