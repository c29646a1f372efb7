"""MoBy: self-supervised pre-training with a momentum encoder and a key queue (MoBy paper and released code)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.drop_path import share_drop_path
from sept.backbones.networks import build, width
from sept.data.rng import generator
from sept.methods.heads import moby_mlp
from sept.methods.learner import FLOAT_BYTES, TwoViewLearner
from sept.methods.moby.contrast import KeyQueue, info_nce
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.momentum import ema_update, momentum_copy
from sept.training.learner import seeded_weights
from sept.training.optim import cosine


class MoBy(TwoViewLearner):
    """Online encoder, projector and predictor; target encoder and projector; two queues of keys.

    A step: EMA update, both target forward passes without gradient, both online forward passes, loss, enqueue,
    optimiser. The released code runs the online passes first, with the same numbers; here their activations are not
    held during the target's passes. The target runs in train mode, with its own BatchNorm statistics and without drop
    path. Processes sharing a batch gather its features before the heads: BatchNorm, keys, queues and loss are as in one
    process.
    """

    online: Any
    target: Any

    def __init__(self, recipe: MoByRecipe, backbone: Backbone, *, seed: int, epochs: int, steps_per_epoch: int) -> None:
        super().__init__(recipe, seed=seed, epochs=epochs, steps_per_epoch=steps_per_epoch)
        with seeded_weights(seed, "moby"):
            encoder = build(backbone.name, backbone.args, drop_path_rate=recipe.drop_path_rate, side=recipe.side)
            self.online = _branch(share_drop_path(encoder), recipe)
            self.predictor = moby_mlp(recipe.out_dim, recipe.hidden_dim, recipe.out_dim)
        self.target = momentum_copy(self.online)
        _disable_drop_path(self.target)
        self.queue = KeyQueue(recipe.out_dim, recipe.queue, generator(seed, "queue"))

    @property
    def encoder(self) -> nn.Module:
        """The backbone that is saved: the online one."""
        return self.online["encoder"]  # type: ignore[no-any-return]

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.online["encoder"], self.target["encoder"]]

    def momentum(self, step: int) -> float:
        """From recipe.momentum at step 0 to 1, half a cosine."""
        return cosine(step, self.steps, self.recipe.momentum, 1.0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images = self.both_views(batch)
        momentum = self.momentum(self.step)
        with torch.no_grad():
            ema_update(self.online, self.target, momentum)
            keys = [F.normalize(z, dim=1) for z in _project(self.target, self.features(self.target["encoder"], images))]
        features = self.features(self.encoder, images)
        predictions = [F.normalize(self.predictor(z), dim=1) for z in _project(self.online, features)]
        queue1, queue2 = self.queue.keys.clone().unbind(0)
        t = self.recipe.temperature
        loss = info_nce(predictions[0], keys[1], queue2, t) + info_nce(predictions[1], keys[0], queue1, t)
        self.queue.enqueue(keys[0], keys[1])
        self.log_health(loss, 2 * math.log(self.recipe.queue + 1), features[0])
        self.record({"momentum": momentum, "queue_age": self.queue_age(self.step, len(keys[0]))})
        return self.finite(loss)

    def queue_age(self, step: int, batch: int) -> float:
        """Age in steps of the queue's oldest key; the initial random ones count from step 0."""
        return float(min(step, math.ceil(self.recipe.queue / batch)))

    def head_bytes(self) -> int:
        r = self.recipe  # of projector and predictor the hidden layer before and after BatchNorm and ReLU; the logits
        return int(FLOAT_BYTES * (2 * 3 * r.hidden_dim + 2 * r.queue))

    def is_undecayed(self, name: str, parameter: Tensor) -> bool:
        table = name.endswith("relative_position_bias_table") and not self.recipe.decay_bias_table
        return table or super().is_undecayed(name, parameter)


def _branch(encoder: nn.Module, recipe: MoByRecipe) -> nn.ModuleDict:
    return nn.ModuleDict({"encoder": encoder, "projector": moby_mlp(width(encoder), recipe.hidden_dim, recipe.out_dim)})


def _project(branch: Any, features: list[Tensor]) -> list[Tensor]:
    """Projections of each view separately, because of the projector's batch statistics."""
    return [branch["projector"](x) for x in features]


def _disable_drop_path(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
