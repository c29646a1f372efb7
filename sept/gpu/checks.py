"""Checks of a device, real or simulated; each takes the machine it runs on."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from sept.data.loading import Batches
from sept.errors import Interrupted
from sept.runtime.hardware import Runtime
from sept.training.learner import Learner
from sept.training.loop import train


@dataclass(frozen=True)
class Trained:
    """Weights and buffers after the last step, on the CPU, and the loss of every step of the last attempt."""

    state: dict[str, Tensor]
    losses: list[float]


def trained(
    learner: Learner, batches: Batches, folder: Path, runtime: Runtime, watchers: Sequence[L.Callback] = ()
) -> Trained:
    """Runs the learner's training in `folder` to the end, from the start or a checkpoint."""
    losses = _Losses()
    train(learner, batches, folder, runtime, what="check", watchers=[losses, *watchers])
    return Trained({name: value.cpu() for name, value in learner.state_dict().items()}, losses.values)


def resumed(
    make: Callable[[], Learner], batches: Callable[[Learner], Batches], folder: Path, runtime: Runtime, after: int
) -> Trained:
    """The same for a training that is stopped by a signal after `after` steps, and resumed with a new learner.

    Raises AssertionError if the signal does not stop it.
    """
    learner = make()
    try:
        train(learner, batches(learner), folder, runtime, what="check", watchers=[_Stop(after)])
    except Interrupted:
        learner = make()
        return trained(learner, batches(learner), folder, runtime)
    raise AssertionError(f"no signal stopped the training after step {after}")


def differing(found: Trained, expected: Trained) -> dict[str, float]:
    """The largest difference of each tensor of the state that is not bitwise equal."""
    gaps = {name: (found.state[name].double() - value.double()).abs() for name, value in expected.state.items()}
    return {name: gap.max().item() for name, gap in gaps.items() if not (gap == 0).all()}


class _Losses(L.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, learner: Any, outputs: Any, *rest: Any) -> None:
        self.values.append(outputs["loss"].item())


class _Stop(L.Callback):
    """Sends a SIGTERM during step number `after`."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_start(self, trainer: Any, learner: Any, batch: Any, batch_idx: int) -> None:
        if learner.step == self.after - 1:
            os.kill(os.getpid(), signal.SIGTERM)
