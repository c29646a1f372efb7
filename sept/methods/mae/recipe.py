"""MAE's recipe: its settings, what they must be, and what a sample costs."""

import math
from dataclasses import dataclass
from typing import ClassVar

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import (
    BACKWARD,
    blocks_flops,
    patch_side,
    prefix_tokens,
    stem_flops,
    transformer_flops,
    width,
)
from sept.errors import ConfigError
from sept.methods.recipe import CHANNELS, OneViewRecipe

POSITION = 4  # channels come in fours: a sine and a cosine of each coordinate
ROUNDING = 1e-9  # 1 - 0.9 is a little less than 0.1, and yet a tenth of 100 patches is 10


@dataclass
class MAERecipe(OneViewRecipe):
    """MAE. Values and their sources: conf/pretrain/mae_vit_b16.yaml."""

    method: ClassVar[str] = "mae"
    title: ClassVar[str] = "MAE"
    learner: ClassVar[str] = "sept.methods.mae.learner:MAE"
    needs: ClassVar[tuple[str, ...]] = ("pooled", "cls", "positions", "plain_vit")

    drop_path_rate: float = ranges.share(0.0, below=1)
    mask_ratio: float = ranges.share(0.75, above=0, below=1)  # share of the patches that the encoder is not shown
    decoder_depth: int = ranges.whole(8, least=1, most=100)  # blocks
    decoder_width: int = ranges.channels(512)
    decoder_heads: int = ranges.whole(16, least=1, most=1024)
    norm_pix: bool = True  # each patch's pixels minus their mean, over their deviation, are predicted

    def check(self, prefix: str) -> None:
        super().check(prefix)
        heads = f"{prefix}.decoder_heads={self.decoder_heads}"
        for parts, what in ((self.decoder_heads, heads), (POSITION, f"{POSITION}, sine and cosine of row and column")):
            if self.decoder_width % parts:
                raise ConfigError(f"{prefix}.decoder_width={self.decoder_width} must be a multiple of {what}")

    def check_network(self, prefix: str, backbone: Backbone) -> None:
        patches, kept = self.patches(backbone), self.kept(backbone)
        if not 0 < kept < patches:
            raise ConfigError(
                f"{prefix}.mask_ratio={self.mask_ratio} keeps {kept} of the {patches} patches of {prefix}.side="
                f"{self.side}: it must keep one and hide one"
            )
        if (wide := width(backbone)) % POSITION:
            raise ConfigError(
                f"{backbone.name} is {wide} wide: {prefix}={self.name} needs a multiple of {POSITION}, sine and cosine "
                "of row and column; change embed_dim"
            )

    def patches(self, backbone: Backbone) -> int:
        return (self.side // patch_side(backbone)) ** 2

    def kept(self, backbone: Backbone) -> int:
        """How many patches the encoder is shown."""
        return math.floor(self.patches(backbone) * (1 - self.mask_ratio) + ROUNDING)

    def flops(self, backbone: Backbone) -> float:
        """All patches embedded, those kept through the encoder's blocks, and all through the decoder and its prediction
        of their pixels; pixels need no gradient."""
        patches, kept, before = self.patches(backbone), self.kept(backbone), prefix_tokens(backbone)
        stem, dim = stem_flops(backbone, self.side), self.decoder_width
        narrowed = 2 * (before + kept) * width(backbone) * dim
        predicted = 2 * patches * dim * CHANNELS * patch_side(backbone) ** 2
        decoder = narrowed + transformer_flops(before + patches, dim, self.decoder_depth) + predicted
        return (1 + BACKWARD) * (stem + blocks_flops(backbone, kept) + decoder) - stem
