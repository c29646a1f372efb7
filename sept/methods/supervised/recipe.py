"""Supervised classification's recipe: its settings, and what a sample costs."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import BACKWARD, training_flops, width
from sept.errors import ConfigError
from sept.methods.recipe import OneViewRecipe


@dataclass
class SupervisedRecipe(OneViewRecipe):
    """Softmax classification of the pool's labels. Values and their sources: conf/pretrain/supervised_*.yaml."""

    method: ClassVar[str] = "supervised"
    title: ClassVar[str] = "Supervised classification"
    learner: ClassVar[str] = "sept.methods.supervised.learner:Supervised"

    smoothing: float = ranges.share(0.1, below=1)  # of the labels
    classes: int | None = ranges.whole(None, least=2)  # of the head; null: those of the chosen images

    @property
    def reads(self) -> str:
        return "labels"

    def of_classes(self, count: int) -> Self:
        if self.classes is not None and count > self.classes:
            raise ConfigError(f"pretrain.classes={self.classes}, and the chosen images are of {count:,} classes")
        if count < 2:
            raise ConfigError("the chosen images are all of one class: set pool.labels to what tells them apart")
        return replace(self, classes=count if self.classes is None else self.classes)

    def flops(self, backbone: Backbone) -> float:
        """One view through backbone and head with gradient. Before the images are chosen, and their classes counted,
        without the head: a few thousandths at most."""
        head = 2 * width(backbone) * (self.classes or 0)
        return training_flops(backbone, self.side) + (1 + BACKWARD) * head
