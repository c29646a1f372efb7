"""What MoBy and iBOT share: views of one batch kept together, and a watch for collapse."""

from typing import Any

import torch
from torch import Tensor, nn

from sept.data.views import Views
from sept.learners.base import Learner
from sept.learners.collapse import effective_rank, feature_std


class SelfSupervised(Learner):
    """A learner without labels. Its loss over that of an indifferent network, and the spread of its features, are
    logged and, as of the last step, part of its state."""

    views: Views
    loss_over_chance: Tensor
    feature_std: Tensor
    effective_rank: Tensor

    def __init__(self, *, seed: int, steps: int) -> None:
        super().__init__(seed=seed, steps=steps)
        for name in ("loss_over_chance", "feature_std", "effective_rank"):
            self.register_buffer(name, torch.zeros(()))

    @property
    def encoder(self) -> nn.Module:
        """The backbone that is handed on."""
        raise NotImplementedError

    def watch(self, loss: Tensor, chance: float | Tensor, features: Tensor) -> None:
        """Log what tells a collapse: of the whole batch, whatever share of it a process holds.

        chance: the loss of a network that tells nothing apart. features (B, D).
        """
        self.loss_over_chance = loss.detach().float() / chance
        self.log_dict({"loss": loss.detach(), "loss_over_chance": self.loss_over_chance})
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.trainer.global_step + 1) % every and self.step + 1 != self.steps:
            return  # not logged at this step: save the eigenvalues
        self.feature_std.fill_(feature_std(features))
        self.effective_rank.fill_(effective_rank(features))
        self.log_dict({"feature_std": self.feature_std, "effective_rank": self.effective_rank})

    def gathered(self, share: Tensor) -> Tensor:
        """(B, ...) of the whole batch, in the order of the processes' shares of it; gradients flow to each share."""
        if self.trainer.world_size == 1:
            return share
        of_each: Any = self.all_gather(share, sync_grads=torch.is_grad_enabled())
        return of_each.flatten(0, 1)  # type: ignore[no-any-return]

    def averaged(self, value: Tensor) -> Tensor:
        """Mean over the processes, without gradient."""
        return self.trainer.strategy.reduce(value.detach().clone(), reduce_op="mean")  # type: ignore[return-value]

    def health(self) -> dict[str, float]:
        """The measures as of the last step."""
        names = ("loss_over_chance", "feature_std", "effective_rank")
        return {name: float(getattr(self, name)) for name in names}


def together(views: list[Tensor]) -> Tensor:
    """Views (B, ...) of one batch as one batch (B * V, ...), the views of a sample side by side.

    In this order the shares of several processes, one after the other, are what one process would hold.
    """
    return torch.stack(views, dim=1).flatten(0, 1)


def apart(batch: Tensor, views: int) -> list[Tensor]:
    """The reverse of `together`."""
    return list(batch.unflatten(0, (-1, views)).unbind(1))
