"""BYOL's recipe: its settings; what follows from a training's length and what a sample costs is as MoBy's."""

from dataclasses import dataclass
from typing import ClassVar

from sept import ranges
from sept.methods.recipe import LAST_NORMS, MOST_LAYERS, MomentumRecipe


@dataclass
class BYOLRecipe(MomentumRecipe):
    """BYOL. Values and their sources: conf/pretrain/byol_resnet50.yaml and byol_vit_b16.yaml."""

    method: ClassVar[str] = "byol"
    title: ClassVar[str] = "BYOL"
    learner: ClassVar[str] = "sept.methods.byol.learner:BYOL"

    projector_layers: int = ranges.whole(2, least=1, most=MOST_LAYERS)
    predictor_layers: int = ranges.whole(2, least=1, most=MOST_LAYERS)
    bias: bool = False  # of the heads' linear layers
    last_norm: str = ranges.choice("none", LAST_NORMS)  # after the heads' last layers: `mlp` in methods/learner.py

    def projector(self, features: int) -> list[int]:
        return [features, *[self.hidden_dim] * (self.projector_layers - 1), self.out_dim]

    def predictor(self) -> list[int]:
        return [self.out_dim, *[self.hidden_dim] * (self.predictor_layers - 1), self.out_dim]
