"""What a training does on a GPU that it does not on a CPU: fit into memory, wait seldom, find a NaN later."""

from dataclasses import replace

import micro
import pytest
import torch
from test_chunks import BATCH, ibot, moby

from sept.errors import NonFiniteError
from sept.gpu.pretended import pretended
from sept.gpu.waits import waits
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.runtime.hardware import Runtime
from sept.store import CHECKPOINTS
from sept.training.loop import Checkpoint

CARD = Runtime("cuda", threads=1, precision="32-true", chunk="auto")
LARGE = 64


def large_moby():
    recipe = micro.moby(batch_size=LARGE, queue=LARGE, drop_path_rate=0.3, lr=1e-4, hidden_dim=16, out_dim=8)
    return MoBy(recipe, micro.SWIN, seed=3, length=Length(2, 1))


def losses(folder, runtime):
    learner, seen = large_moby(), []
    step = learner.training_step
    learner.training_step = lambda *args: seen.append(step(*args)) or seen[-1]
    packed = micro.subset(folder / "images", LARGE)
    micro.run(learner, micro.cropped(learner, packed, LARGE), folder / str(runtime.chunk), runtime)
    return [loss.item() for loss in seen], learner.chunk


def test_auto_chooses_a_chunk_by_the_memory_of_the_card(tmp_path):
    with pretended() as roomy:
        expected, whole = losses(tmp_path / "roomy", CARD)
    assert whole is None
    less = int(0.6 * roomy.memory.peak)
    with pretended(memory=less), pytest.raises(torch.OutOfMemoryError):
        losses(tmp_path / "less", replace(CARD, chunk=None))
    with pretended(memory=less) as tight:
        found, chunk = losses(tmp_path / "less", CARD)
    assert 0 < chunk.kept < LARGE
    assert tight.memory.peak > 0.6 * less
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("make", [moby, ibot])
def test_a_loss_that_is_not_finite_is_found_before_anything_is_saved(make, tmp_path):
    learner = make()
    learner.steps, step = 8, learner.training_step

    def spoilt(*args):
        loss = step(*args)
        return learner.finite(loss * float("nan")) if learner.step == 3 else loss

    learner.training_step = spoilt
    packed = micro.subset(tmp_path / "images", 24)
    runtime = replace(CARD, checkpoint_every_s=0)
    with pretended(), pytest.raises(NonFiniteError, match="the loss of step 3 is nan; lower the learning rate"):
        micro.run(learner, micro.cropped(learner, packed, BATCH), tmp_path, runtime)
    state = Checkpoint(tmp_path / CHECKPOINTS).load()
    assert state["step"] == 3
    assert all(value.isfinite().all() for value in state["learner"].values() if value.is_floating_point())


@pytest.mark.parametrize("make", [moby, ibot])
def test_a_step_waits_for_the_device_twice_at_most(make, tmp_path):
    learner = make()
    packed = micro.subset(tmp_path / "images", 24)
    steps = waits(learner, micro.cropped(learner, packed, BATCH))
    assert steps.total <= 2, steps.where
