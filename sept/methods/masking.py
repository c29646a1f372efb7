"""What learners share that hide a part of an image at random and predict it."""

from typing import Any

import torch
from torch import Tensor

from sept.data.rng import generator
from sept.methods.learner import OneViewLearner
from sept.runtime.device import rank_and_world, send


def draw_masks(seed: int, step: int, images: int, places: int, hidden: int) -> Tensor:
    """(images, places) bool on the CPU, `hidden` of each row true, every set of them equally likely.

    A function of the seed, the step and the position in the batch that processes share: `images` are this one's.
    """
    rank, world = rank_and_world()
    noise = torch.rand(images * world, places, generator=generator(seed, "hidden", step))
    chosen = noise[rank * images : (rank + 1) * images].argsort(dim=1)[:, :hidden]
    return torch.zeros(images, places, dtype=torch.bool).scatter_(1, chosen, True)


class MaskedLearner(OneViewLearner):
    """A learner that predicts the pixels of an image in hidden places.

    Its target is the normalised view itself, so `statistics` of the backbone scale the loss where the method does not
    normalise it. A process computes the loss of its share: each image hides as much, so the mean of the processes is
    the loss of the batch.
    """

    places: int  # of an image, to be hidden or not
    hidden: int  # how many of them are

    def reconstruct(self, network: Any, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features (n, D), the loss of each image (n,) and its loss if all predictions were zero (n,), of images
        (n, 3, H, W) with places hidden where mask (n, places) is true. network: the encoder."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, losses, zeros = self._encoded(self.view(batch), self.step)
        loss = losses.mean()
        mean, chance = self.averaged(torch.stack([loss, zeros.mean()])).unbind()
        self.log_health(mean, chance, self.gathered(features))
        return self.finite(loss)

    def _encoded(self, images: Tensor, step: int) -> Any:
        drawn = draw_masks(self.seed, step, len(images), self.places, self.hidden)
        return self.encode(self.reconstruct, self.encoder, [images, *send([drawn], images.device)], 1)

    def encode_blank(self, images: int) -> Any:
        """Through the decoder too, which runs in the same chunks."""
        side = self.recipe.side
        return self._encoded(torch.zeros(images, 3, side, side, device=self.device), 0)

    def head_bytes(self) -> int:
        return 0  # decoder and loss run with the encoder
