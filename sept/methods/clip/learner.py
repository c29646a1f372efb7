"""CLIP: images and their captions meet in one space (Radford et al. 2021)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.networks import build, share_drop_path, width
from sept.methods.clip.recipe import ClipRecipe
from sept.methods.clip.text import TextTower, tokens_of
from sept.methods.learner import FLOAT_BYTES, OneViewLearner
from sept.methods.recipe import Length
from sept.runtime.device import send
from sept.training.learner import in_chunks, seeded_weights
from sept.training.optim import cosines


class Clip(OneViewLearner):
    """A backbone, a text tower, a projection of each, and the logarithm of the scale of their similarities.

    Processes sharing a batch gather the features of both towers: every image is compared with every caption of the
    whole batch.
    """

    def __init__(self, recipe: ClipRecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        super().__init__(recipe, seed=seed, length=length)
        self.tokens = tokens_of(recipe.tokens)
        with seeded_weights(seed, recipe.method):
            network = build(backbone.name, backbone.args, drop_path_rate=recipe.drop_path_rate, side=recipe.side)
            self.backbone, self.text = share_drop_path(network), TextTower(recipe, self.tokens.size)
            self.image_projection = _projection(width(network), recipe.out_dim)
            self.text_projection = _projection(recipe.text_width, recipe.out_dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / recipe.temperature)))

    @property
    def encoder(self) -> nn.Module:
        """The backbone that is handed on, without its projection; the text tower is not."""
        return self.backbone

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features = self.features(self.backbone, self.view(batch))
        tokens, ends = send(list(self.tokens.batch(batch["caption"], self.recipe.context)), features.device)
        words = self.gathered(in_chunks(self.text, [tokens, ends], self.chunk))
        images, captions = self.image_projection(features), self.text_projection(words)
        loss = symmetric(images, captions, self.log_scale.exp())
        self.log_health(loss, math.log(len(images)), features)
        self.record({"temperature": (-self.log_scale).exp()})
        return self.finite(loss)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The step, then the bound of the scale, so that a callback that saves runs after both."""
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(1 / self.recipe.least_temperature))

    def encode_blank(self, images: int) -> Any:
        """Images with captions of the greatest length."""
        tokens = torch.zeros(images, self.recipe.context, dtype=torch.int64, device=self.device)
        ends = torch.full((images,), self.recipe.context - 1, device=self.device)
        return super().encode_blank(images), self.text(tokens, ends)

    def head_bytes(self) -> int:
        return int(FLOAT_BYTES * 3 * self.recipe.batch_size)  # similarities, their softmax and its gradient


def _projection(in_dim: int, out_dim: int) -> nn.Linear:
    linear = nn.Linear(in_dim, out_dim, bias=False)
    nn.init.normal_(linear.weight, std=in_dim**-0.5)
    return linear


def symmetric(images: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """A scalar: the mean of the cross-entropies of finding each image's caption, and each caption's image, among those
    of the batch by the scaled cosine (CLIP, Fig. 3). images, captions (B, D), not normalised."""
    logits = scale * cosines(images, captions)
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
