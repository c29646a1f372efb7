"""MAE's decoder: from the tokens of the patches that were shown to the pixels of all."""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from sept.methods.mae.positions import sincos
from sept.methods.mae.recipe import MAERecipe

NORM_EPS = 1e-6  # of layer norms (MAE released code)
TOKEN_STD = 0.02


class Decoder(nn.Module):
    """Transformer blocks on all tokens, a learned one in place of each hidden patch, and a linear map to pixels.

    D width of the encoder, P tokens that are no patches, K patches kept of L, C values of the pixels of a patch.
    """

    places: Tensor

    def __init__(self, recipe: MAERecipe, dim: int, grid: int, pixels: int) -> None:
        super().__init__()
        width = recipe.decoder_width
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("places", sincos(width, grid, grid))
        self.blocks = nn.Sequential(
            *(Block(width, recipe.decoder_heads, qkv_bias=True) for _ in range(recipe.decoder_depth))
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Linear(width, pixels)
        self.apply(initialise)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """Predicted pixels (n, L, C) of all patches. tokens (n, P + K, D): those before the patches, which have no
        position here, and the patches of index kept (n, K)."""
        x = self.embed(tokens)
        before, shown = x.tensor_split([x.shape[1] - kept.shape[1]], dim=1)
        hidden = self.mask_token.to(x.dtype).expand(len(x), len(self.places), -1)
        patches = hidden.scatter(1, wide(kept, x.shape[2]), shown) + self.places
        x = self.norm(self.blocks(torch.cat([before.to(patches.dtype), patches], dim=1)))
        return self.head(x[:, before.shape[1] :])  # type: ignore[no-any-return]


def wide(places: Tensor, width: int) -> Tensor:
    """Indices (n, K) of tokens as indices (n, K, width) of their values."""
    return places.unsqueeze(-1).expand(-1, -1, width)


def initialise(module: nn.Module) -> None:
    """Linear maps by Xavier's uniform distribution, without bias (MAE released code)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
