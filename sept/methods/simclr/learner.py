"""SimCLR: each view has to find the other view of its image among all views of the batch (Chen et al. 2020a, b)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.networks import build, share_drop_path, width
from sept.methods.learner import FLOAT_BYTES, TwoViewLearner, mlp
from sept.methods.recipe import VIEWS, Length
from sept.methods.simclr.recipe import SimCLRRecipe
from sept.training.learner import seeded_weights
from sept.training.optim import cosines


class SimCLR(TwoViewLearner):
    """An encoder and a projector.

    Batch norm, in the projector and in an encoder that has it, is over both views of all images together, as in the
    released code. Processes sharing a batch gather its features before the projector: batch norm and loss are as in one
    process.
    """

    def __init__(self, recipe: SimCLRRecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        super().__init__(recipe, seed=seed, length=length)
        with seeded_weights(seed, "simclr"):
            network = build(backbone.name, backbone.args, drop_path_rate=recipe.drop_path_rate, side=recipe.side)
            self.backbone = share_drop_path(network)
            self.projector = mlp(recipe.projector(width(network)), bias=recipe.bias, last_norm=recipe.last_norm)

    @property
    def encoder(self) -> nn.Module:
        return self.backbone

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features = self.features(self.backbone, self.both_views(batch))
        first, second = self.projector(torch.cat(features)).chunk(VIEWS)
        loss = nt_xent(first, second, self.recipe.temperature)
        self.log_health(loss, math.log(VIEWS * len(first) - 1), features[0])
        return self.finite(loss)

    def head_bytes(self) -> int:
        r = self.recipe  # layers before and after BatchNorm and ReLU; products with all views, masked, and in the loss
        layers = sum(r.projector(width(self.backbone))[1:])
        return int(FLOAT_BYTES * 3 * (layers + VIEWS * r.batch_size))


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of classifying the other view of an image among all other views of the batch: a scalar.

    first, second (B, D): projections of the two views, of any length (SimCLR, Eq. 1 and Algorithm 1: the mean over the
    2B views, each against 2B - 1 others). At random features it is about ln(2B - 1). The released TensorFlow code adds
    the means of the two directions, which is twice this. As the steps of LARS do not depend on a gradient's length, the
    factor matters only beside the weight decay, and for norms.
    """
    views = torch.cat([first, second])
    logits = cosines(views, views) / temperature  # (2B, 2B)
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    other = torch.arange(len(views), device=views.device).roll(len(first))
    return F.cross_entropy(logits.masked_fill(itself, -math.inf), other)
