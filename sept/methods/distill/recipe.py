"""Distillation's recipe: its settings, and what a sample costs."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import BACKWARD, training_flops, width
from sept.methods.recipe import POOL_FEATURES, OneViewRecipe


@dataclass
class DistillRecipe(OneViewRecipe):
    """Distillation of the retriever's vectors. Values and their sources: conf/pretrain/distill_*.yaml."""

    method: ClassVar[str] = "distill"
    title: ClassVar[str] = "Distillation of the retriever"
    learner: ClassVar[str] = "sept.methods.distill.learner:Distill"

    temperature: float = ranges.temperature(0.07)
    out_dim: int | None = ranges.whole(None, least=1)  # of the vectors; null: those of the chosen images

    @property
    def reads(self) -> str:
        return POOL_FEATURES

    def of_width(self, count: int) -> Self:
        return replace(self, out_dim=count)

    def flops(self, backbone: Backbone) -> float:
        """One view through backbone and head with gradient, its cosines with the batch's vectors with gradient, and
        theirs with each other without. The vectors cost nothing: the pool is embedded already. Before their width is
        known, the network alone: up to 0.4 % less for vectors of 128 numbers, 3 % for 768, on micro networks."""
        dim = self.out_dim or 0
        head = (1 + BACKWARD) * 2 * width(backbone) * dim
        cosines = (1 + 1 + 1) * 2 * self.batch_size * dim  # forward, backward to the student alone, and the targets
        return training_flops(backbone, self.side) + head + cosines
