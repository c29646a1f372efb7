"""Networks of timm as retrievers: how they are described, built, filled, kept and fetched."""

import math
from pathlib import Path
from typing import Any

from timm.data import resolve_data_config
from torch import nn

from sept.backbones import Backbone, networks
from sept.backbones.networks import record_of
from sept.backbones.weights import load_backbone, save_backbone
from sept.errors import ConfigError

CROP_MODES = {"center": False, "squash": True}


def preprocess(name: str, args: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What timm's evaluation does for the network's weights, as the fields of a `Preprocess`.

    given: what is set already: a crop of another size keeps timm's share of the image. Raises ConfigError for an
    unknown name, and for what cannot be done here.
    """
    key = "retriever.backbone.name"
    record = record_of(name, key)
    side = args.get("img_size")
    asked = {"img_size": side} if isinstance(side, int) else {}
    data = resolve_data_config(asked, pretrained_cfg=record.to_dict() if record else {})
    _, height, crop = data["input_size"]
    if height != crop and "crop" not in given:
        raise ConfigError(f"{key}={name} is for images of {height}x{crop} pixels: set retriever.preprocess.crop=SIDE")
    if data["crop_mode"] not in CROP_MODES and "squash" not in given:
        raise ConfigError(
            f"{key}={name}: timm shows it images by crop_mode={data['crop_mode']}: set retriever.preprocess.squash"
        )
    crop = given.get("crop", crop)
    return {
        "resize": math.floor(crop / data["crop_pct"]),
        "crop": crop,
        "squash": CROP_MODES.get(data["crop_mode"], False),
        "interpolation": data["interpolation"],
        "mean": data["mean"],
        "std": data["std"],
    }


def build(backbone: Backbone, side: int | None = None) -> nn.Module:
    """With fresh weights. side: pixels of the square images that it is to take."""
    return networks.build(backbone.name, backbone.args, side=side)


def image_tower(network: nn.Module) -> nn.Module:
    """What makes images (B, 3, H, W) features."""
    return network


def width(network: nn.Module) -> int:
    """Of a feature that is taken once."""
    return networks.width(network)


def load(network: nn.Module, file: Path, branch: str = "teacher") -> None:
    load_backbone(network, file, branch)


def save(network: nn.Module, folder: Path, backbone: Backbone, facts: dict[str, Any]) -> None:
    save_backbone(network, folder, backbone.name, backbone.args, facts, networks.statistics(backbone))
