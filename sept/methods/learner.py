"""What MoBy and iBOT share: views of one batch kept together, and a watch for collapse."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sept.backbones.drop_path import drop_path_factors, set_factors
from sept.backbones.weights import load_backbone
from sept.methods.health import effective_rank, feature_std
from sept.methods.views import Views
from sept.training.chunks import Chunk, fitting, in_chunks, kept_bytes
from sept.training.learner import Learner

FLOAT_BYTES = 4
PIXEL_BYTES = 1 + 2 * FLOAT_BYTES  # of a view as it comes, as it is coloured and among the others of its batch
GRADIENTS, ADAM = 1, 2  # times the weights: what a step makes beside the activations
log = logging.getLogger(__name__)


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

    @property
    def encoders(self) -> list[nn.Module]:
        """Every network that is a copy of the backbone, moving averages too."""
        return [self.encoder]

    def start_from(self, weights: Path) -> None:
        """Fill every copy of the backbone, before the first step, from a file; heads stay random. ConfigError where
        the weights do not fit."""
        for network in self.encoders:
            load_backbone(network, weights)

    def encode(self, forward: Callable, network: nn.Module, inputs: Sequence[Tensor | None], views: int) -> Any:
        """forward(network, *inputs) for inputs (n, ...), of which a sample has so many views: in chunks where the batch
        does not fit, and with the drops of the network drawn for the whole batch."""
        images = next(each for each in inputs if each is not None)
        forward = self.compiled(forward)

        def run(factors: Tensor | None, *part: Tensor | None) -> Any:
            set_factors(network, factors)
            return forward(network, *part)

        return in_chunks(run, [drop_path_factors(network, images), *inputs], self.chunk and self.chunk * views)

    def encode_blank(self, images: int) -> Any:
        """Encode blank images with gradients: to see what memory an image takes."""
        raise NotImplementedError

    def bytes_beside(self, images: int) -> int:
        """About the bytes that a batch takes beside the encoder: its views, what heads and losses keep."""
        raise NotImplementedError

    def log_health(self, loss: Tensor, chance: float | Tensor, features: Tensor) -> None:
        """Log what tells a collapse: of the whole batch, whatever share of it a process holds.

        chance: the loss of a network that tells nothing apart. features (B, D).
        """
        self.loss_over_chance.copy_(loss.detach() / chance)
        self.record({"loss": loss.detach(), "loss_over_chance": self.loss_over_chance})
        if not self.recording and self.step + 1 != self.steps:
            return  # save the eigenvalues
        self.feature_std.copy_(feature_std(features))
        self.effective_rank.copy_(effective_rank(features))
        self.record({"feature_std": self.feature_std, "effective_rank": self.effective_rank})

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


def chunk_that_fits(learner: SelfSupervised, images: int) -> Chunk | None:
    """How a batch of `images` is encoded so that a step fits into the memory of the learner's GPU; None: as a whole, as
    on other devices. Raises ConfigError where not one image fits."""
    if learner.device.type != "cuda" or not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info(learner.device)
    free += torch.cuda.memory_reserved(learner.device) - torch.cuda.memory_allocated(learner.device)
    weights = sum(each.nbytes for each in learner.parameters() if each.requires_grad)
    free -= (GRADIENTS + ADAM) * weights + learner.bytes_beside(images)
    with learner.trainer.precision_plugin.train_step_context():
        each = kept_bytes(learner.encode_blank)
    chunk = fitting(images, each, free)
    if chunk is not None:
        log.info("%d of %d images keep their activations, the others are encoded twice", chunk.kept, images)
    return chunk


def interleave_views(views: list[Tensor]) -> Tensor:
    """Views (B, ...) of one batch as one batch (B * V, ...), the views of a sample side by side.

    In this order the shares of several processes, one after the other, are what one process would hold.
    """
    return torch.stack(views, dim=1).flatten(0, 1)


def split_views(batch: Tensor, views: int) -> list[Tensor]:
    """The reverse of `interleave_views`."""
    return list(batch.unflatten(0, (-1, views)).unbind(1))
