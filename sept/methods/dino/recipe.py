"""DINO's recipe: its settings."""

from dataclasses import dataclass
from typing import ClassVar

from sept import ranges
from sept.methods.recipe import SelfDistillationRecipe


@dataclass
class DinoRecipe(SelfDistillationRecipe):
    """DINO (Caron et al. 2021). Values and their sources: conf/pretrain/dino_vit_s16.yaml."""

    method: ClassVar[str] = "dino"
    title: ClassVar[str] = "DINO"
    learner: ClassVar[str] = "sept.methods.dino.learner:Dino"

    optimiser: str = ranges.choice("adamw", ("adamw", "sgd"))  # sgd: with momentum 0.9
    norm_last_layer: bool = True  # prototypes keep length 1: stabler; false lets them learn it
