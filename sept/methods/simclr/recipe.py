"""SimCLR's recipe: its settings, and what a sample costs."""

from dataclasses import dataclass
from typing import ClassVar

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import BACKWARD, training_flops, width
from sept.methods.recipe import LAST_NORMS, MOST_LAYERS, VIEWS, TwoViewRecipe, mlp_flops


@dataclass
class SimCLRRecipe(TwoViewRecipe):
    """SimCLR. Values and their sources: conf/pretrain/simclr_resnet50.yaml and simclr_vit_b16.yaml."""

    method: ClassVar[str] = "simclr"
    title: ClassVar[str] = "SimCLR"
    learner: ClassVar[str] = "sept.methods.simclr.learner:SimCLR"

    projector_layers: int = ranges.whole(3, least=1, most=MOST_LAYERS)
    hidden_dim: int | None = ranges.channels(None)  # of the projector; null: as wide as the encoder's features
    out_dim: int = ranges.channels(128)
    bias: bool = False  # of the projector's linear layers
    last_norm: str = ranges.choice("scale", LAST_NORMS)  # after the projector's last layer: `mlp` in methods/learner.py
    temperature: float = ranges.temperature(0.1)

    def projector(self, features: int) -> list[int]:
        """Widths before, between and after the projector's layers. features: of the encoder."""
        return [features, *[self.hidden_dim or features] * (self.projector_layers - 1), self.out_dim]

    def flops(self, backbone: Backbone) -> float:
        """Two views through encoder and projector with gradient, and a sample's share of the products of all views of
        the batch with each other."""
        projector = mlp_flops(self.projector(width(backbone)))
        similarities = 2 * self.out_dim * VIEWS * self.batch_size  # of one view
        return VIEWS * (training_flops(backbone, self.side) + (1 + BACKWARD) * (projector + similarities))
