"""BYOL: from one view, predict what a slowly moving copy of the network makes of the other (Grill et al. 2020)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sept.backbones import Backbone
from sept.backbones.networks import build, width
from sept.methods.byol.recipe import BYOLRecipe
from sept.methods.learner import ema_update, mlp
from sept.methods.momentum import MomentumLearner
from sept.methods.recipe import Length
from sept.training.learner import seeded_weights
from sept.training.optim import at_least_single

CHANCE = 4.0  # the loss of predictions at right angles to their targets


class BYOL(MomentumLearner):
    """A momentum encoder and a predictor; no negatives.

    A step: both target forward passes without gradient, both online forward passes, loss, optimiser, EMA update with
    the new weights. Each view is a batch of its own for batch norm, in heads and encoders, as in the released code. The
    target starts as a copy of the online network; that code draws it anew, and says that this makes no difference.
    """

    apart = True

    def __init__(self, recipe: BYOLRecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        super().__init__(recipe, seed=seed, length=length)
        with seeded_weights(seed, "byol"):
            encoder = build(backbone.name, backbone.args, drop_path_rate=recipe.drop_path_rate, side=recipe.side)
            projector, predictor = (
                mlp(widths, bias=recipe.bias, last_norm=recipe.last_norm)
                for widths in (recipe.projector(width(encoder)), recipe.predictor())
            )
            self.add_networks(encoder, projector, predictor)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images = self.both_views(batch)
        with torch.no_grad():
            targets = self.targets(images)
        features = self.features(self.encoder, images)
        predictions = self.predictions(features)
        loss = regression(predictions[0], targets[1]) + regression(predictions[1], targets[0])
        self.log_health(loss, CHANCE, features[0])
        self.record({"momentum": self.momentum(self.step)})
        return self.finite(loss)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The online networks' step, then the target's, so that a callback that saves runs after both."""
        super().optimizer_step(*args, **kwargs)
        ema_update(self.online, self.target, self.momentum(self.step))


def regression(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of unit vectors, 2 - 2 cos: a scalar from 0 to 4.

    prediction (B, D) from one view, target (B, D) projections of the other, which get no gradient (BYOL, Eq. 2). BYOL
    adds both orders of the views (Eq. 3).
    """
    cosines = F.cosine_similarity(at_least_single(prediction), at_least_single(target.detach()), dim=1)
    return (2 - 2 * cosines).mean()
