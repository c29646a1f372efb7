"""What every learner shares: the step it is at, schedules set from it, seeded draws, a guard against NaN."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from sept.data.rng import fold
from sept.errors import NonFiniteError


class Learner(L.LightningModule):
    """A LightningModule whose step t is a pure function of (weights, optimiser state, seed, t).

    `first_step` is where a resumed run starts; the trainer counts from there. Drop path draws from torch's global
    generator, which is seeded anew at every step (reliability rule R7), alike in every process: nothing has to be
    restored, and several processes draw for the batch they share (`sept.models.drop_path`).
    """

    def __init__(self, *, seed: int, steps: int) -> None:
        super().__init__()
        self.seed, self.steps, self.first_step = seed, steps, 0

    @property
    def step(self) -> int:
        """The optimiser step that runs next, counted from the start of the whole training."""
        return self.first_step + self.trainer.global_step

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
        self.log("lr", self.lr(self.step))
        self.log("step", float(self.step))  # where the loggers put the values; the trainer's own starts at 0 again

    def finite(self, loss: Tensor) -> Tensor:
        """`loss`, or NonFiniteError: a NaN is never trained on, and never reaches a checkpoint."""
        if not torch.isfinite(loss.detach()):
            rate = self.lr(self.step)
            raise NonFiniteError(
                f"the loss of step {self.step} is {loss.item()}; lower the learning rate ({rate:g} now)"
            )
        return loss

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
