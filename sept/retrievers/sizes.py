"""How wide a retriever's vectors are and what one takes, without torch for the networks that have a named option."""

import json
from dataclasses import dataclass
from functools import cache

from sept.backbones import Backbone
from sept.backbones.flops import counted_flops, forward_flops, is_plain
from sept.backbones.flops import width as backbone_width
from sept.retrievers import FEATURES, LIBRARIES
from sept.retrievers.settings import CHANNELS


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
