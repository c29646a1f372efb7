"""What every learner shares: the step it is at, schedules set from it, seeded draws, curves, a guard against NaN."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from sept.backbones import IMAGENET, Statistics
from sept.data.rng import fold
from sept.errors import NonFiniteError
from sept.training.chunks import Chunk


class Learner(L.LightningModule):
    """A LightningModule whose step t is a pure function of (weights, optimiser state, seed, t).

    `first_step` is where a resumed run starts; the trainer counts from there. Drop path draws from torch's global
    generator, which is seeded anew at every step (reliability rule R7), alike in every process: nothing has to be
    restored, and several processes draw for the batch they share (`sept.backbones.drop_path`).

    A step does not wait for the device: what is to be seen of it, values of curves and whether losses are finite, stays
    there until `take_recorded` and `require_finite_losses` ask for it.
    """

    statistics: Statistics = IMAGENET  # what the network's images are normalised by
    chunk: Chunk | None = None  # how the encoder takes a batch; None: as a whole
    compile_networks: bool = False  # by torch.compile

    def __init__(self, *, seed: int, steps: int) -> None:
        super().__init__()
        self.seed, self.steps, self.first_step = seed, steps, 0
        self._compiled: dict[Callable, Callable] = {}
        self._recorded: dict[str, Tensor | float] = {}
        self._losses: dict[int, Tensor] = {}  # by step, not looked at yet

    def use_compile(self, on: bool) -> None:
        """Whether networks, and what else can be, are compiled from now on."""
        self.compile_networks = on

    def chunk_that_fits(self, images: int) -> Chunk | None:
        """How a batch of `images` is encoded so that a step fits into the memory of its GPU; None: as a whole."""
        return None

    @property
    def step(self) -> int:
        """The optimiser step that runs next, counted from the start of the whole training."""
        return self.first_step + self.trainer.global_step

    def compiled(self, function: Callable) -> Callable:
        """`function` by torch.compile, where this learner is to be compiled."""
        if not self.compile_networks:
            return function
        if function not in self._compiled:
            self._compiled[function] = torch.compile(function)
        return self._compiled[function]

    def lr(self, step: int, scale: float = 1.0) -> float:
        """The rate of a parameter group whose peak is `scale` times the learner's."""
        raise NotImplementedError

    def weight_decay(self, step: int) -> float | None:
        """The decay of the decayed groups at this step; None leaves them as they are."""
        return None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(fold(self.seed, "step", self.step))
        decay = self.weight_decay(self.step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr(self.step, group["scale"])
            if decay is not None and group["weight_decay"] > 0:
                group["weight_decay"] = decay
        self.record({"lr": self.lr(self.step), "step": self.step})

    @property
    def recording(self) -> bool:
        """Whether the curves get a point at this step."""
        return (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    def record(self, values: Mapping[str, Tensor | float]) -> None:
        """Keep values, scalars, for the curves; where this step is no point of them, do nothing."""
        if self.recording:
            plain = ((name, value.detach() if isinstance(value, Tensor) else value) for name, value in values.items())
            self._recorded |= dict(plain)

    def take_recorded(self) -> dict[str, float]:
        """What was recorded since the last call. Waits for the device, once."""
        recorded, self._recorded = self._recorded, {}
        there = {name: value for name, value in recorded.items() if isinstance(value, Tensor)}
        values = torch.stack([value.double() for value in there.values()]).tolist() if there else []
        return {**recorded, **dict(zip(there, values, strict=True))}  # type: ignore[dict-item]

    def finite(self, loss: Tensor) -> Tensor:
        """`loss`, to be looked at: at once on a CPU, later where a look would wait for the device."""
        self._losses[self.step] = loss.detach()
        if loss.device.type == "cpu":
            self.require_finite_losses()
        return loss

    def require_finite_losses(self) -> None:
        """Raises NonFiniteError for the first loss since the last call that is not finite. Called before a checkpoint
        is written: a NaN never reaches one. Waits for the device, once."""
        losses, self._losses = self._losses, {}
        values = torch.stack([*losses.values()]).tolist() if losses else []
        for step, value in zip(losses, values, strict=True):
            if not math.isfinite(value):
                raise NonFiniteError(
                    f"the loss of step {step} is {value}; lower the learning rate ({self.lr(step):g} now)"
                )

    def adamw(self, groups: list[dict], **options: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=self.lr(0), fused=True, **options)


@contextmanager
def seeded_weights(seed: int, purpose: str) -> Iterator[None]:
    """Build networks inside: their initial weights depend on (seed, purpose) alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold(seed, "weights", purpose))
        yield


def clip_each(parameters: Iterator[nn.Parameter] | list[nn.Parameter], limit: float) -> None:
    """Clip the gradient norm of every tensor by itself (iBOT, DINO), not their joint norm."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack(torch._foreach_norm(grads))
    torch._foreach_mul_(grads, list((limit / (norms + 1e-6)).clamp(max=1.0).unbind()))
