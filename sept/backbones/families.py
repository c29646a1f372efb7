"""The trunk of any backbone: by its family, how it is built and filled with weights."""

from pathlib import Path
from typing import Any

import torch

from sept.backbones import Backbone
from sept.backbones.networks import NoDropPath, build, is_swin
from sept.backbones.stages import StagesTrunk, reductions
from sept.backbones.trunk import Trunk
from sept.backbones.weights import load_backbone
from sept.errors import ConfigError

TRUNKS = "swin_*, vit_* and convolutional networks (resnet50, convnext_tiny) do"
"""What does what another network does not, for messages."""

MAPS = ("deep", "spread", "last")
"""Of a network of one grid: a pyramid of its last map (detection), one of maps from several depths (UPerNet), or its
last map alone after its norm (a linear layer)."""


def build_trunk(backbone: Backbone, start: Path | None, drop_path_rate: float = 0.0, maps: str = "deep") -> Trunk:
    """With fresh weights, or those of the file `start`, of every kind that `load_backbone` knows.

    maps: one of MAPS; networks of stages give the maps of their stages in any case. Raises ConfigError for a network
    that gives no maps or takes images of one size only, and for a file that does not fit it key by key.
    """
    assert maps in MAPS
    with torch.device("meta"):  # to look at: nothing is drawn for its weights
        described = build(backbone.name, backbone.args)
    if is_swin(described):
        from sept.backbones.swin import swin_trunk

        return swin_trunk(backbone.name, backbone.args, start, drop_path_rate)
    found = reductions(described)
    if not found:
        raise ConfigError(f"backbone.name={backbone.name}: it gives no maps for detection and segmentation; {TRUNKS}")
    plain = len(found) > 1 and len({*found}) == 1
    network = (
        _of_any_size(backbone, drop_path_rate)
        if plain
        else build(backbone.name, backbone.args, drop_path_rate=drop_path_rate)
    )
    if start is not None:
        load_backbone(network, start)
    if not plain:
        return StagesTrunk(network, keeps_statistics=start is not None)
    from sept.backbones.plain import LastMap, PlainTrunk

    return LastMap(network) if maps == "last" else PlainTrunk(network, deep=maps == "deep")


def _of_any_size(backbone: Backbone, drop_path_rate: float) -> Any:
    args = {**backbone.args, "dynamic_img_size": True}
    try:
        return build(backbone.name, args, drop_path_rate=drop_path_rate)
    except NoDropPath:
        raise
    except ConfigError:  # it was built without
        raise ConfigError(
            f"backbone.name={backbone.name}: its positions are for images of one size; detection and segmentation take "
            f"any: {TRUNKS}"
        ) from None
