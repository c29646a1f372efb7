"""SimMIM: squares of an image are replaced by a learned token, and a linear map predicts their pixels (Xie et al.
2021)."""

from typing import Any

import torch
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.flops import cell_side, patch_side
from sept.backbones.networks import build, share_drop_path, width
from sept.methods.masking import MaskedLearner
from sept.methods.recipe import CHANNELS, Length
from sept.methods.simmim.recipe import SimMIMRecipe
from sept.training.learner import seeded_weights
from sept.training.optim import at_least_single

TOKEN_STD = 0.02
MASK_TOKEN = "mask_token"  # a parameter's name


class SimMIM(MaskedLearner):
    """A Swin, a mask token and a linear decoder (released code; paper, section 3).

    The token replaces the embeddings of hidden patches before the first stage, so every window sees it, shifted or not.
    All patches run: it costs a whole forward and backward pass.
    """

    recipe: SimMIMRecipe

    def __init__(self, recipe: SimMIMRecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        super().__init__(recipe, seed=seed, length=length)
        cell = cell_side(backbone)
        self.repeats = recipe.mask_unit // patch_side(backbone)  # patches along a side of a square
        self.places, self.hidden = recipe.units, recipe.hidden
        with seeded_weights(seed, "simmim"):
            swin: Any = build(backbone.name, backbone.args, drop_path_rate=recipe.drop_path_rate, side=recipe.side)
            self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, swin.embed_dim))
            nn.init.trunc_normal_(self.mask_token, std=TOKEN_STD)
            self.decoder = nn.Sequential(nn.Conv2d(width(swin), CHANNELS * cell**2, 1), nn.PixelShuffle(cell))
        self.swin = share_drop_path(swin)

    @property
    def encoder(self) -> nn.Module:
        """The backbone that is saved."""
        return self.swin

    def reconstruct(self, network: Any, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean absolute error of the hidden pixels; features are those of the image with its squares hidden."""
        squares = mask.unflatten(1, (-1, self.recipe.side // self.recipe.mask_unit))
        patches = enlarged(squares, self.repeats)  # (n, H, W)
        embedded = network.patch_embed(images)
        x = torch.where(patches.unsqueeze(-1), self.mask_token.to(embedded.dtype), embedded)
        map_ = network.norm(network.layers(x))
        features = network.forward_head(map_.detach(), pre_logits=True)
        predicted = self.decoder(map_.permute(0, 3, 1, 2))
        target = at_least_single(images)
        pixels = enlarged(squares, self.recipe.mask_unit).unsqueeze(1)
        shares = CHANNELS * self.hidden * self.recipe.mask_unit**2
        errors, zeros = (predicted - target).abs(), target.abs()
        losses = (torch.where(pixels, each, 0).sum(dim=(1, 2, 3)) / shares for each in (errors, zeros))
        return features.detach(), *losses

    def is_undecayed(self, name: str, parameter: Tensor) -> bool:
        """The mask token too; bias tables are decayed (released code, whose exception for them has no effect)."""
        return name == MASK_TOKEN or super().is_undecayed(name, parameter)


def enlarged(mask: Tensor, times: int) -> Tensor:
    """(n, times * h, times * w) of (n, h, w): each cell repeated."""
    return mask.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
