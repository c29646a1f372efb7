"""MAE: a ViT is shown a quarter of the patches, and a small decoder predicts the pixels of the others (He et al.
2021)."""

from typing import Any

import torch
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.networks import build, share_drop_path, width
from sept.methods.mae.decoder import NORM_EPS, TOKEN_STD, Decoder, initialise, wide
from sept.methods.mae.positions import sincos
from sept.methods.mae.recipe import MAERecipe
from sept.methods.masking import MaskedLearner
from sept.methods.recipe import CHANNELS, Length
from sept.training.learner import seeded_weights
from sept.training.optim import at_least_single

VARIANCE_EPS = 1e-6  # of a patch's pixels (released code)


class MAE(MaskedLearner):
    """Encoder and decoder (released code; paper, section 3).

    The position embedding of the encoder is fixed, sines and cosines; it stays a parameter of the ViT, without
    gradient, so the saved backbone is an ordinary one, whose `pos_embed` holds these values. A ViT that pools patches
    (`global_pool=avg`) has its norm after pooling, where pre-training does not use it: the tokens get a norm of this
    learner, and that of the ViT is saved as it was made, for fine-tuning to begin with.
    """

    recipe: MAERecipe

    def __init__(self, recipe: MAERecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        super().__init__(recipe, seed=seed, length=length)
        with seeded_weights(seed, "mae"):
            vit: Any = build(backbone.name, backbone.args, drop_path_rate=recipe.drop_path_rate, side=recipe.side)
            self.patch: int = vit.patch_embed.patch_size[0]
            grid, pixels = recipe.side // self.patch, CHANNELS * self.patch**2
            _initialise(vit)
            self.decoder = Decoder(recipe, width(vit), grid, pixels)
        self.vit = share_drop_path(vit)
        pooled_first = isinstance(vit.norm, nn.Identity)
        self.norm = nn.LayerNorm(width(vit), eps=NORM_EPS) if pooled_first else nn.Identity()
        for fixed in (vit.pos_embed, *_pooling(vit)):
            fixed.requires_grad_(False)
        self.places, self.kept = recipe.patches(backbone), recipe.kept(backbone)
        self.hidden = self.places - self.kept

    @property
    def encoder(self) -> nn.Module:
        """The backbone that is saved."""
        return self.vit

    def reconstruct(self, network: Any, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean squared error of the hidden patches; features are pooled as the network does, from what it is
        shown."""
        kept = mask.byte().argsort(dim=1, stable=True)[:, : self.kept]
        placed = network._pos_embed(network.patch_embed(images))
        before, patches = placed.tensor_split([network.num_prefix_tokens], dim=1)
        shown = torch.cat([before, patches.gather(1, wide(kept, patches.shape[2]))], dim=1)
        tokens = network.norm(network.blocks(network.norm_pre(shown)))
        features = network.forward_head(tokens.detach(), pre_logits=True)
        predicted = self.decoder(self.norm(tokens), kept)
        target = patch_pixels(at_least_single(images), self.patch)
        if self.recipe.norm_pix:
            target = normalised(target)
        errors, zeros = (predicted - target).square().mean(dim=2), target.square().mean(dim=2)
        return features.detach(), *(torch.where(mask, each, 0).sum(dim=1) / self.hidden for each in (errors, zeros))


def patch_pixels(images: Tensor, patch: int) -> Tensor:
    """(n, L, patch * patch * 3): the pixels of each patch of images (n, 3, H, W), patches row by row."""
    cut = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (n, 3, rows, patch, columns, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def normalised(pixels: Tensor) -> Tensor:
    """Pixels (.., C) of each patch minus their mean, over their deviation (paper, section 3, reconstruction target). Of
    C values of some contrast the mean square is (C - 1) / C: the variance is the unbiased one."""
    deviation = (pixels.var(dim=-1, keepdim=True) + VARIANCE_EPS).sqrt()
    return (pixels - pixels.mean(dim=-1, keepdim=True)) / deviation


@torch.no_grad()
def _initialise(vit: Any) -> None:
    """MAE's initialisation, and its positions: zero for tokens that are no patches."""
    vit.apply(initialise)
    nn.init.xavier_uniform_(vit.patch_embed.proj.weight.view(width(vit), -1))
    for token in (vit.cls_token, vit.reg_token):
        if token is not None:
            nn.init.normal_(token, std=TOKEN_STD)
    places = sincos(width(vit), *vit.patch_embed.grid_size)
    vit.pos_embed.zero_()[0, -len(places) :] = places


def _pooling(vit: Any) -> list[nn.Parameter]:
    """Parameters of a ViT that follow its tokens: the loss does not reach them."""
    modules = (getattr(vit, name, None) for name in ("fc_norm", "attn_pool"))
    return [each for module in modules if module is not None for each in module.parameters()]
