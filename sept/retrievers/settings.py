"""Settings of a retriever: which network, what it is shown, what is taken from it, how wide that is and what it takes.

Without torch for the networks that have a named option.
"""

import json
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, get_args

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import counted_flops, forward_flops, is_plain
from sept.backbones.flops import width as backbone_width
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


@dataclass(frozen=True)
class Known:
    """Of one network. crop: pixels of the side that the FLOPs of an image are for. features: that it offers."""

    crop: int
    width: int
    flops: float
    features: tuple[str, ...]


OF_CLASS_TOKEN = ("cls_mean", "cls", "mean", "pooled")
KNOWN = {
    "vit_small_patch14_dinov2.lvd142m": Known(224, 384, 12_247_123_968, OF_CLASS_TOKEN),
    "vit_base_patch14_dinov2.lvd142m": Known(224, 768, 46_322_454_528, OF_CLASS_TOKEN),
    "vit_small_patch14_reg4_dinov2.lvd142m": Known(224, 384, 12_455_184_384, OF_CLASS_TOKEN),
    "vit_base_patch14_reg4_dinov2.lvd142m": Known(224, 768, 47_078_313_984, OF_CLASS_TOKEN),
    "vit_small_patch16_dinov3.lvd1689m": Known(224, 384, 9_396_209_664, OF_CLASS_TOKEN),
    "vit_base_patch16_dinov3.lvd1689m": Known(224, 768, 35_864_285_184, OF_CLASS_TOKEN),
    "vit_base_patch16_clip_quickgelu_224.openai": Known(224, 768, 35_126_120_448, OF_CLASS_TOKEN),
    "vit_base_patch16_siglip_224.v2_webli": Known(224, 768, 35_416_584_192, ("mean", "pooled")),
    "vit_base_patch16_224.augreg_in21k": Known(224, 768, 35_126_120_448, OF_CLASS_TOKEN),
    "convnext_base.fb_in22k": Known(224, 1024, 30_707_410_944, ("pooled",)),
}
"""Counted by torch and tried (tests/test_retrievers.py)."""


def is_known(backbone: Backbone, crop: int, feature: str) -> bool:
    """Whether nothing has to be tried: as its authors use it."""
    known = KNOWN.get(backbone.name)
    return known is not None and not backbone.args and known.crop == crop and feature in known.features


def dim(library: str, backbone: Backbone, feature: str) -> int:
    """Length of a vector."""
    return FEATURES[feature].times * _width(library, backbone)


def flops(library: str, backbone: Backbone, crop: int) -> float:
    """Of one image of `crop` pixels through the network."""
    known = KNOWN.get(backbone.name)
    if known is not None and not backbone.args and known.crop == crop:
        return known.flops
    if library == "timm" and is_plain(backbone):
        return forward_flops(backbone, crop)
    return _measured(library, backbone.name, json.dumps(backbone.args), crop)[1]


def _width(library: str, backbone: Backbone) -> int:
    known = KNOWN.get(backbone.name)
    if known is not None and not backbone.args:
        return known.width
    if library == "timm" and is_plain(backbone):
        return backbone_width(backbone)
    return _measured(library, backbone.name, json.dumps(backbone.args), None)[0]


@cache
def _measured(library: str, name: str, args: str, crop: int | None) -> tuple[int, float]:
    """Width, and FLOPs of an image of `crop` pixels, of the network built without memory."""
    import torch

    from_library = LIBRARIES[library].load()
    with torch.device("meta"):
        network = from_library.build(Backbone(name, json.loads(args)), crop).requires_grad_(False)
        tower = from_library.image_tower(network)
        counted = counted_flops(tower, torch.empty(1, CHANNELS, crop, crop)) if crop else 0.0
    return from_library.width(network), counted
