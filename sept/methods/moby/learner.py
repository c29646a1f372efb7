"""MoBy: self-supervised pre-training with a momentum encoder and a key queue (MoBy paper and released code)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.networks import build, width
from sept.data.rng import generator
from sept.methods.learner import FLOAT_BYTES, ema_update, mlp
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.momentum import MomentumLearner
from sept.methods.recipe import Length
from sept.training.learner import seeded_weights
from sept.training.optim import at_least_single


class MoBy(MomentumLearner):
    """A momentum encoder, and two queues of its keys.

    A step: EMA update, both target forward passes without gradient, both online forward passes, loss, enqueue,
    optimiser. The released code runs the online passes first, with the same numbers; here their activations are not
    held during the target's passes.
    """

    def __init__(self, recipe: MoByRecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        super().__init__(recipe, seed=seed, length=length)
        assert recipe.queue is not None, "fitted"
        self.keys = recipe.queue
        with seeded_weights(seed, "moby"):
            encoder = build(backbone.name, backbone.args, drop_path_rate=recipe.drop_path_rate, side=recipe.side)
            self.add_networks(encoder, mlp(recipe.projector(width(encoder))), mlp(recipe.predictor()))
        self.queue = KeyQueue(recipe.out_dim, self.keys, generator(seed, "queue"))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images = self.both_views(batch)
        momentum = self.momentum(self.step)
        with torch.no_grad():
            ema_update(self.online, self.target, momentum)
            keys = [F.normalize(z, dim=1) for z in self.targets(images)]
        features = self.features(self.encoder, images)
        predictions = [F.normalize(z, dim=1) for z in self.predictions(features)]
        queue1, queue2 = self.queue.keys.clone().unbind(0)
        t = self.recipe.temperature
        loss = info_nce(predictions[0], keys[1], queue2, t) + info_nce(predictions[1], keys[0], queue1, t)
        self.queue.enqueue(keys[0], keys[1])
        self.log_health(loss, 2 * math.log(self.keys + 1), features[0])
        self.record({"momentum": momentum, "queue_age": self.queue_age(self.step, len(keys[0]))})
        return self.finite(loss)

    def queue_age(self, step: int, batch: int) -> float:
        """Age in steps of the queue's oldest key; the initial random ones count from step 0."""
        return float(min(step, math.ceil(self.keys / batch)))

    def head_bytes(self) -> int:
        return super().head_bytes() + FLOAT_BYTES * 2 * self.keys  # and the logits

    def is_undecayed(self, name: str, parameter: Tensor) -> bool:
        table = name.endswith("relative_position_bias_table") and not self.recipe.decay_bias_table
        return table or super().is_undecayed(name, parameter)


class KeyQueue(nn.Module):
    """Two ring buffers of M keys, one per view, with a common write position; buffers, so checkpoints contain them.

    keys: (2, D, M) float32, N(0, 1) then L2-normalised per column at the start (MoBy released code).
    """

    keys: Tensor
    position: Tensor

    def __init__(self, dim: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(2, dim, size, generator=generator), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys1: Tensor, keys2: Tensor) -> None:
        """Overwrites the oldest keys with those of both views (B, D), B at most M."""
        size, batch = self.keys.shape[2], keys1.shape[0]
        assert batch <= size, f"a queue of {size} keys does not take a batch of {batch}"
        slots = (self.position + torch.arange(batch, device=self.keys.device)) % size
        self.keys[:, :, slots] = torch.stack([keys1.T, keys2.T]).to(self.keys.dtype)
        self.position.copy_((self.position + batch) % size)


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of classifying each query's key against the queue: a scalar.

    query (B, D) predictions of one view, key (B, D) target projections of the other, both L2-normalised;
    queue (D, M) earlier keys of the key's view. No gradient reaches key or queue. At random features it
    is about ln(M + 1). MoBy adds the two directions, without a factor (released code).
    """
    positive = (query * key.detach()).sum(dim=1, keepdim=True)  # (B, 1)
    with torch.autocast(query.device.type, enabled=False):  # as `cosines` says
        negative = at_least_single(query) @ at_least_single(queue.detach())
    logits = torch.cat([at_least_single(positive), negative], dim=1) / temperature  # (B, 1 + M)
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))
