"""Settings of a retriever: which network, what it is shown and what is taken from it."""

from dataclasses import dataclass, field

from sept import ranges
from sept.backbones import Backbone
from sept.errors import ConfigError
from sept.methods.recipe import Recipe
from sept.retrievers import FEATURES


@dataclass
class Preprocess:
    """What an image goes through before the retrieval encoder: the same for pool and task."""

    resize: int = ranges.side(256)
    crop: int = ranges.side(224)
    squash: bool = True  # resize to a square (SEPT's wording), else by the shorter side (iBOT's evaluation)


@dataclass
class Retriever:
    """The encoder that embeds pool and task: its weights from a file, or trained on the pool by any method."""

    name: str = ranges.text("")
    backbone: Backbone = field(default_factory=Backbone)
    weights: str | None = ranges.text(None)  # a file; "sept:NAME" is one shipped with the package; null: train
    branch: str = ranges.choice("teacher", ("teacher", "student"))  # of a full iBOT checkpoint
    train: Recipe = field(default_factory=Recipe)
    epochs: int = ranges.epochs(800, least=1)  # of its training
    feature: str = ranges.choice("cls_mean", FEATURES)
    preprocess: Preprocess = field(default_factory=Preprocess)
    batch_size: int = ranges.batch(256)  # of the embedding; no influence on the result
    seed: int = ranges.seed()

    def check(self) -> None:
        """Also the recipe of one that is read from a file: what is wrong is said wherever it stands."""
        if self.preprocess.crop > self.preprocess.resize:
            raise ConfigError(
                f"retriever.preprocess.crop={self.preprocess.crop} is larger than "
                f"retriever.preprocess.resize={self.preprocess.resize}"
            )
        self.backbone.check("retriever.backbone")
        self.train.check("retriever.train")
