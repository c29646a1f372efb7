"""Counts synchronisations, operators and bytes moved in a training step."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from sept.data.loading import Batches
from sept.gpu.pretended import BYTES, OPERATORS, WAITS, pretended
from sept.runtime.hardware import Runtime
from sept.training.learner import Learner
from sept.training.loop import train


@dataclass(frozen=True)
class Steps:
    """Averages per step. waits: by their names in `sept.gpu.pretended`; where: (times, what it waits for,
    line), most frequent first."""

    waits: dict[str, float]
    operators: float
    bytes: float
    where: Sequence[tuple[float, str, str]]

    @property
    def total(self) -> float:
        return sum(self.waits.values())

    def __str__(self) -> str:
        each = ", ".join(f"{number:.2f} {name}" for name, number in self.waits.items() if number)
        moved = f"{self.operators:.0f} operators, {self.bytes / 1e6:.1f} MB moved"
        return f"{self.total:.2f} waits ({each or 'none'}), {moved}"


def waits(learner: Learner, batches: Batches, steps: int = 11, precision: str = "bf16-mixed") -> Steps:
    """Trains for `steps` + 1 steps on a simulated device and counts those after the first, including loading their
    batches.

    A checkpoint and tests after a step are not counted. Values are logged every ten steps, so eleven steps include at
    least one with logging.
    """
    seen = _Seen()
    learner.steps = steps + 1
    with pretended() as device, tempfile.TemporaryDirectory() as folder:
        seen.device = device
        runtime = Runtime("cuda", threads=1, precision=precision, checkpoint_every_s=float("inf"))
        train(learner, batches, Path(folder), runtime, what="count", watchers=[seen])
    first, last = seen.counts[0], seen.counts[-1]
    places = Counter({place: (last[1][place] - first[1][place]) / steps for place in last[1]})
    return Steps(
        {name: (last[0][name] - first[0][name]) / steps for name in WAITS},
        (last[0][OPERATORS] - first[0][OPERATORS]) / steps,
        (last[0][BYTES] - first[0][BYTES]) / steps,
        [(number, *place) for place, number in places.most_common() if number],
    )


class _Seen(L.Callback):
    """Records the counts at the end of every step, before a checkpoint."""

    device: Any

    def __init__(self) -> None:
        self.counts: list[tuple[Counter, Counter]] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.counts.append((self.device.counts.copy(), self.device.where.copy()))
