"""Settings of a retriever: which network, what it is shown and what is taken from it."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from sept import ranges
from sept.backbones import Backbone
from sept.errors import ConfigError
from sept.methods.recipe import Recipe
from sept.retrievers import FEATURES, LIBRARIES

Interpolation = Literal["bilinear", "bicubic"]
CHANNELS = 3
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """What an image goes through before the retrieval encoder: the same for pool and task.

    Resized to `resize` pixels (a square where squash, else the shorter side), its centre of `crop` pixels taken, and
    each channel of values in [0, 1] made (value - mean) / std.
    """

    resize: int = 256
    crop: int = 224
    squash: bool = True
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        """Statistics may come as lists, from a manifest."""
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if self.crop > self.resize:
            raise ConfigError(
                f"retriever.preprocess.crop={self.crop} is larger than retriever.preprocess.resize={self.resize}"
            )


@dataclass
class PreprocessSettings:
    """Of a `Preprocess`; null: what the network's library records of it."""

    resize: int | None = ranges.side(256)
    crop: int | None = ranges.side(224)
    squash: bool | None = True  # resize to a square (SEPT's wording), else by the shorter side (iBOT's evaluation)
    interpolation: str | None = ranges.choice("bicubic", get_args(Interpolation))
    mean: list[float] | None = ranges.several(IMAGENET_MEAN, ranges.Number(least=0, most=1), count=CHANNELS)
    std: list[float] | None = ranges.several(IMAGENET_STD, ranges.Number(above=0, most=1), count=CHANNELS)

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass
class Retriever:
    """The encoder that embeds pool and task: its weights from a file, or trained on the pool by any method."""

    name: str = ranges.text("")
    library: str = ranges.choice("timm", LIBRARIES)  # that the network comes from
    backbone: Backbone = field(default_factory=Backbone)
    # a file; "sept:NAME" is one shipped with the package, "hub" the one that the library names; null: train
    weights: str | None = ranges.text(None)
    branch: str = ranges.choice("teacher", ("teacher", "student"))  # of a full iBOT checkpoint
    train: Recipe = field(default_factory=Recipe)
    epochs: int = ranges.epochs(800, least=1)  # of its training
    feature: str = ranges.choice("cls_mean", FEATURES)
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    batch_size: int = ranges.batch(256)  # of the embedding; no influence on the result
    seed: int = ranges.seed()

    def check(self) -> None:
        """Also the recipe of one that is read from a file: what is wrong is said wherever it stands."""
        replace(Preprocess(), **{"resize": ranges.MOST_SIDE, "crop": 1, **self.preprocess.given()})
        if FEATURES[self.feature].library != self.library:
            known = [name for name, each in FEATURES.items() if each.library == self.library]
            raise ConfigError(
                f"retriever.feature={self.feature}: of networks of retriever.library={self.library} are taken "
                f"{', '.join(known)}"
            )
        if self.library != "timm" and self.weights is None:
            raise ConfigError(
                f"retriever.weights=null trains networks of timm, and retriever.library={self.library}: give a file "
                "or hub"
            )
        self.backbone.check("retriever.backbone")
        self.train.check("retriever.train")

    def resolved_preprocess(self) -> Preprocess:
        """With the library's record, which imports it, where a setting is null. ConfigError where there is none."""
        given = self.preprocess.given()
        if len(given) == len(vars(self.preprocess)):
            return Preprocess(**given)
        record = LIBRARIES[self.library].load().preprocess(self.backbone.name, self.backbone.args, given)
        return Preprocess(**{**record, **given})
