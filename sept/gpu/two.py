"""A training by two processes: equal to one, faster than one, and behaviour when one of them fails.

With two cards under NCCL; with fewer only the failures, of two processes on the CPU under gloo.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L

from sept.data import steps_per_epoch
from sept.errors import Interrupted, SeptError
from sept.gpu import failing
from sept.gpu.card import Card
from sept.gpu.cases import BATCH, IMAGES, SEED, Case, case, packed
from sept.gpu.checks import Trained
from sept.gpu.equality import MOVED, moved
from sept.gpu.report import Result, Skip
from sept.gpu.runner import Check, stopping
from sept.gpu.speed import RATE, Clock, job, workers
from sept.gpu.speed import packed as packed_photos
from sept.methods.recipe import Length
from sept.methods.training import Pretraining
from sept.runtime.hardware import Runtime, no_loggers
from sept.training import distributed

TOGETHER = 60.0  # seconds within which all have to end
LONGEST = 90.0  # seconds after which a check that hangs is stopped
SAME_LOSS = 1e-3  # relative, of the last step
EACH, STEPS = 256, 14  # images of a card in a step, and steps: of the scaling


def ends(card: Card, name: str, work: Callable[[Path, Runtime], None], said: str) -> Result:
    """All processes end soon, and the exception names the cause."""
    two, where = (card.runtime(devices=2), "NCCL") if card.count > 1 else (card.cpu(devices=2), "gloo, on the CPU")
    folder = Path(tempfile.mkdtemp(dir=card.folder))
    try:
        with stopping(LONGEST):
            distributed.run(partial(work, folder), two)
        told = "nothing was raised"
    except (SeptError, Interrupted) as error:
        told = str(error)
    seconds = failing.seconds_since(folder)
    good = said in told and seconds <= TOGETHER
    expected = f"all end within {TOGETHER:.0f} s and report the cause"
    return Result(f"{name} of 2 processes", good, f"{seconds:.1f} s", expected, f"{where}; {told}")


def equal(card: Card) -> list[Result]:
    _need_two(card)
    return equality(card, card.runtime(), card.runtime(devices=2))


def equality(card: Card, one: Runtime, two: Runtime) -> list[Result]:
    """MoBy's training by two machines: of one process and of two."""
    made = case("MoBy", card)
    ends = [_trained(card, made, runtime) for runtime in (one, two)]
    losses = [float(end.state["loss_over_chance"]) for end in ends]
    gap, share = abs(losses[1] - losses[0]) / losses[0], moved(made, ends[1], ends[0])
    return [
        Result("two processes: the last loss", gap <= SAME_LOSS, f"{gap:.1e}", f"<= {SAME_LOSS:g} off that of one"),
        Result("two processes: weights", share <= MOVED, f"{share:.1e}", f"off by <= {MOVED:g} of what training moved"),
    ]


def _trained(card: Card, made: Case, runtime: Runtime) -> Trained:
    folder = Path(tempfile.mkdtemp(dir=card.folder))
    images = packed(card.folder)
    make: Any = made.make
    recipe, backbone = make.args
    length = Length(make.keywords["length"].steps, IMAGES // BATCH)  # epochs of several steps each
    training = Pretraining(recipe, backbone, images, SEED, length, {}, folder, "check", no_loggers)
    learner = training.run(replace(runtime, checkpoint_every_s=0))
    return Trained({name: value.cpu() for name, value in learner.state_dict().items()}, [])


def scaling(card: Card) -> list[Result]:
    _need_two(card)
    rates = [rate(card, card.runtime(card.fast, devices=n, workers=workers(card) // n), EACH * n) for n in (1, 2)]
    told = [
        Result(f"end to end, MoBy, {cards}", True, each, text=f"{EACH} a card, {card.fast}", unit=RATE)
        for cards, each in zip(("1 card", "2 cards"), rates, strict=True)
    ]
    return [*told, Result("two cards over one", True, rates[1] / rates[0], unit="times the images/s")]


def rate(card: Card, runtime: Runtime, batch: int) -> float:
    """Images per second of a MoBy training on one or several devices."""
    of = job("MoBy", card)
    recipe: Any = replace(of.recipe, batch_size=batch)
    folder = Path(tempfile.mkdtemp(dir=card.folder))
    images = packed_photos(card, recipe)
    length, watchers = Length(STEPS, steps_per_epoch(len(images), batch)), partial(clocks, folder)
    Pretraining(recipe, of.model, images, 0, length, {}, folder, "speed", no_loggers, watchers).run(runtime)
    return Clock.timed(STEPS) * batch / float((folder / CLOCK).read_text())


CLOCK = "seconds.txt"


class Written(Clock):
    """Writes its measurement to a file, as it may run in another process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(STEPS)
        self.folder = folder

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        super().on_train_batch_end()
        if trainer.is_global_zero:
            (self.folder / CLOCK).write_text(str(self.seconds))


def clocks(folder: Path) -> list[L.Callback]:
    return [Written(folder)]


def _need_two(card: Card) -> None:
    if card.count < 2:
        raise Skip("needs two cards")


CHECKS: Mapping[str, Check] = {
    "one of two raises": partial(ends, name="one raises", work=failing.raising, said=failing.RAISED),
    "one of two is killed": partial(ends, name="one is killed", work=failing.killed, said="SIGKILL"),
    "two processes equal one": equal,
    "scaling to two cards": scaling,
}
