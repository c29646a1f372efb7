"""SimMIM's recipe: its settings, what they must be, and what a sample costs."""

import math
from dataclasses import dataclass
from typing import ClassVar

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import BACKWARD, cell_side, patch_side, training_flops, width
from sept.errors import ConfigError
from sept.methods.recipe import CHANNELS, OneViewRecipe


@dataclass
class SimMIMRecipe(OneViewRecipe):
    """SimMIM. Values and their sources: conf/pretrain/simmim_swin_t.yaml."""

    method: ClassVar[str] = "simmim"
    title: ClassVar[str] = "SimMIM"
    learner: ClassVar[str] = "sept.methods.simmim.learner:SimMIM"
    needs: ClassVar[tuple[str, ...]] = ("pooled", "plain_swin")

    drop_path_rate: float = ranges.share(0.0, below=1)
    mask_unit: int = ranges.side(32)  # pixels of a side of the squares that are hidden as a whole
    mask_ratio: float = ranges.share(0.6, above=0, below=1)  # share of them, rounded up

    @property
    def units(self) -> int:
        """Squares of an image."""
        return (self.side // self.mask_unit) ** 2

    @property
    def hidden(self) -> int:
        """How many of them are hidden."""
        return math.ceil(self.units * self.mask_ratio)

    def check(self, prefix: str) -> None:
        super().check(prefix)
        if self.side % self.mask_unit:
            raise ConfigError(f"{prefix}.mask_unit={self.mask_unit} does not divide {prefix}.side={self.side}")
        if self.hidden == self.units:
            raise ConfigError(
                f"{prefix}.mask_ratio={self.mask_ratio} hides all {self.units} squares of {prefix}.mask_unit="
                f"{self.mask_unit} pixels: lower one of the two"
            )

    def check_network(self, prefix: str, backbone: Backbone) -> None:
        patch, cell = patch_side(backbone), cell_side(backbone)
        if self.mask_unit % patch:
            raise ConfigError(
                f"{prefix}.mask_unit={self.mask_unit} is no multiple of the patches of {backbone.name}, {patch} pixels"
            )
        if self.side % cell:
            raise ConfigError(
                f"{prefix}.side={self.side} is no multiple of the cells of the last map of {backbone.name}, {cell} "
                "pixels, whose pixels are predicted"
            )

    def flops(self, backbone: Backbone) -> float:
        """The whole image through the backbone, and a linear map of each cell of its last map to the cell's pixels."""
        cells, pixels = (self.side // cell_side(backbone)) ** 2, CHANNELS * cell_side(backbone) ** 2
        return training_flops(backbone, self.side) + (1 + BACKWARD) * 2 * cells * width(backbone) * pixels
