"""Backbones by timm name: timm's record of one, the features taken from it, its layer ids, its stochastic depth.

Stochastic depth is drawn before a forward pass, for every image of the global batch. So it does not matter how a batch
is shared among processes, cut into chunks or encoded a second time in the backward pass.

Shapes: B batch, L patch tokens, D width.
"""

import re
from difflib import SequenceMatcher
from functools import lru_cache
from importlib import import_module
from typing import Any

import timm
import torch
from timm.layers import DropPath, to_2tuple
from timm.models import PretrainedCfg, swin_transformer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sept.backbones import IMAGENET, OWN, Backbone, Statistics
from sept.errors import ConfigError
from sept.runtime.device import rank_and_world, send

KEY = "backbone.name"  # the setting that holds a name, for messages
DROP_PATH = "drop_path_rate"  # timm's argument, which networks without residual branches do not have
NEAR = 5  # names in a message


class NoDropPath(ConfigError):
    """A rate of stochastic depth was asked of a network that has none."""


def build(
    name: str, args: dict[str, Any], *, drop_path_rate: float = 0.0, num_classes: int = 0, side: int | None = None
) -> nn.Module:
    """A timm model with fresh weights and a head of `num_classes` (0: none, it gives pooled features (B, D)).

    `side`: pixels of the square images that it is to take, None for the model's own size; see `sized_args`.
    Raises ConfigError for a name timm does not have, arguments it does not take or a side that it cannot have, and
    NoDropPath where it has no stochastic depth and a rate is asked for.
    """
    args = sized_args(name, args, side)
    try:
        try:
            return timm.create_model(
                name, pretrained=False, num_classes=num_classes, drop_path_rate=drop_path_rate, **args
            )
        except TypeError as error:
            if f"unexpected keyword argument {DROP_PATH!r}" not in str(error):
                raise
        if drop_path_rate:
            raise NoDropPath(f"{DROP_PATH}={drop_path_rate}: {name} has no stochastic depth; set it to 0")
        return timm.create_model(name, pretrained=False, num_classes=num_classes, **args)
    except NoDropPath:
        raise
    except Exception as error:  # of timm's constructors, which check few of their arguments
        raise ConfigError(f"backbone.args={args} do not fit {name}: {_first_line(error)}") from error


def sized_args(name: str, args: dict[str, Any], side: int | None) -> dict[str, Any]:
    """`args`, and what makes the model take images of `side` pixels and weights of its own size all the same.

    Swin keeps its windows, and so its bias tables, where a stage is smaller than one: it pads. A ViT interpolates its
    position embedding in every forward pass (timm's way, which differs a little from iBOT's). Convolutional networks
    take any size. Of other models, those that can only be built for one size refuse weights of another.
    Raises ConfigError for a name timm does not have, or a side that is no multiple of the model's patches.
    """
    config = record_of(name, KEY)
    if side is None or config is None or not config.fixed_input_size:
        return dict(args)
    if to_2tuple(args.get("img_size", config.input_size[-1])) == (side, side):
        return dict(args)
    ways: list[dict[str, Any]] = [{"dynamic_img_size": True, **args}, {**args, "img_size": side}]
    if timm.model_entrypoint(name).__module__ == swin_transformer.__name__:
        ways = [{"always_partition": True, **args, "img_size": side}]
    return next((way for way in ways if _takes(name, way, side)), dict(args))


def any_side(name: str, args: dict[str, Any], side: int) -> dict[str, Any]:
    """`args`, and what makes the model, built for images of `side` pixels, take smaller ones too: local crops.

    A ViT interpolates its position embedding, a Swin pads to whole windows of the size that it is built with.
    Convolutional networks take any size. Other models stay as they are.
    """
    config = record_of(name, KEY)
    if config is None or not config.fixed_input_size:
        return dict(args)
    ways: list[dict[str, Any]] = [{**args, "dynamic_img_size": True}, {**args, "strict_img_size": False}]
    return next((way for way in ways if _takes(name, sized_args(name, way, side), side)), dict(args))


def statistics(backbone: Backbone) -> Statistics:
    """Mean and deviation by which images for the network are normalised: ImageNet's, unless timm's record of its name
    says otherwise and the backbone asks for that."""
    record = record_of(backbone.name, KEY)
    if backbone.statistics == "imagenet" or record is None or len(record.mean) != len(IMAGENET[0]):
        return IMAGENET
    return tuple(record.mean), tuple(record.std)


def _takes(name: str, args: dict[str, Any], side: int) -> bool:
    """Whether timm builds the model with these arguments, tried without memory or random draws."""
    try:
        with torch.device("meta"):
            model: Any = timm.create_model(name, pretrained=False, num_classes=0, **args)
    except Exception:  # of timm's constructors: the next way is tried, and `build` tells
        return False
    patch = to_2tuple(getattr(getattr(model, "patch_embed", None), "patch_size", 1))
    if side % patch[0] or side % patch[1]:
        raise ConfigError(f"side={side}: {name} takes sides that are multiples of its patches of {max(patch)} pixels")
    return True


def _first_line(error: Exception) -> str:
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown:
        return f"it takes no {unknown[1]}; leave it out"
    return str(error).partition("\n")[0] or type(error).__name__


def width(model: nn.Module) -> int:
    """Channels of the pooled feature: of some networks (MobileNetV3, VGG) other than those of their last map."""
    return int(getattr(model, "head_hidden_size", None) or model.num_features)  # type: ignore[arg-type]


def has_batch_norm(model: nn.Module) -> bool:
    """Whether what becomes of an image in training depends on the others of its batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def tokens(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Final tokens of a network of tokens: prefix (B, P, D), of which the first is [CLS] where there is one, and
    patches (B, L, D)."""
    out = network.forward_features(images)
    prefix = int(getattr(network, "num_prefix_tokens", 0))
    return out[:, :prefix], out[:, prefix:]


def swin_layer_id(name: str, depths: tuple[int, ...]) -> int:
    """Layer id of a timm Swin parameter in SimMIM's numbering: stem 0, blocks 1..n, norm and head n + 1.

    timm names a stage's downsample after the stage it opens; the published code after the stage it closes, whose
    last block it shares its id with. timm's own `param_groups_layer_decay` differs on these and on the norm.
    """
    if name.startswith("patch_embed"):
        return 0
    if not name.startswith("layers."):
        return sum(depths) + 1
    stage, part, rest = name.removeprefix("layers.").split(".", 2)
    before = sum(depths[: int(stage)])
    if part == "downsample":
        return before
    return before + int(rest.split(".")[0]) + 1


def layer_ids(model: Any) -> tuple[dict[str, int], int]:
    """Layer id of every parameter and the number of ids, for layer-wise learning-rate decay.

    Swin: SimMIM's numbering. Other timm models: their own `group_matcher`, coarse enough to count blocks. Raises
    ConfigError for a model without one.
    """
    names = [name for name, _ in model.named_parameters()]
    depths = tuple(len(stage.blocks) for stage in model.layers) if is_swin(model) else ()
    if depths:
        return {name: swin_layer_id(name, depths) for name in names}, sum(depths) + 2
    if not hasattr(model, "group_matcher"):
        raise ConfigError(
            f"{type(model).__name__} does not tell its layers apart (group_matcher): rates cannot decay by layer"
        )
    from timm.models import group_parameters

    groups = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    layers = max(groups.values()) + 1
    return {name: groups.get(name, layers - 1) for name in names}, layers


def is_swin(model: nn.Module) -> bool:
    return type(model).__name__ == "SwinTransformer"


class SharedDropPath(DropPath):
    """timm's DropPath with the factors (B,) of the images that come next: 0, or 1 / (1 - rate)."""

    factors: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.drop_prob or not self.training:
            return x
        assert self.factors is not None, "drop_path_factors come before a forward pass in train mode"
        return x * self.factors.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def share_drop_path(model: nn.Module) -> nn.Module:
    """`model` with every DropPath replaced by a shared one."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is DropPath:
                setattr(module, name, SharedDropPath(child.drop_prob))
    return model


def drop_path_factors(model: nn.Module, images: Tensor) -> Tensor | None:
    """(B, layers) float32 for a forward pass of B `images` in train mode, None where nothing is dropped.

    Drawn from torch's global generator of the CPU, layer by layer, for the global batch: processes hold equal,
    consecutive shares of it and draw from generators that are seeded alike.
    """
    layers = _dropping(model)
    if not layers:
        return None
    rank, world = rank_and_world()
    share = slice(rank * len(images), (rank + 1) * len(images))
    keeps = [1 - layer.drop_prob for layer in layers]
    drawn = [torch.empty(len(images) * world).bernoulli_(keep)[share] / keep for keep in keeps]
    return send([torch.stack(drawn, dim=1)], images.device)[0]


def set_factors(model: nn.Module, factors: Tensor | None) -> None:
    """Give the layers their columns of `drop_path_factors`, or of some of its rows, for the forward pass to come."""
    if factors is not None:
        for layer, column in zip(_dropping(model), factors.unbind(1), strict=True):
            layer.factors = column


def _dropping(model: nn.Module) -> list[SharedDropPath]:
    """In the order in which they are called."""
    return [m for m in model.modules() if isinstance(m, SharedDropPath) and m.drop_prob and m.training]


def record_of(name: str, key: str) -> PretrainedCfg | None:
    """timm's record of its model `name`, which may end in a tag of weights; None where it keeps none.

    key: the setting that holds the name, for messages. Raises ConfigError with the nearest names for one that timm
    does not have, and with the tags there are for an unknown tag.
    """
    architecture, _, tag = name.partition(".")
    if architecture in OWN:
        import_module(OWN[architecture])
    if not timm.is_model(architecture):
        near = ", ".join(_near(architecture, (*timm.list_models(), *OWN)))
        raise ConfigError(f"{key}={name}: timm {timm.__version__} has no such model; near it: {near}")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:  # timm knows the model, and not the tag
        known = _near(tag, tuple(each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")))
        raise ConfigError(
            f"{key}={name}: timm {timm.__version__} has no weights {tag} of {architecture}; "
            f"it has {', '.join(known) or 'none'}"
        ) from None


@lru_cache(maxsize=16)
def _near(name: str, known: tuple[str, ...]) -> list[str]:
    """Names that begin most like it, the shortest first among equals."""

    def unlike(other: str) -> tuple[float, int, str]:
        return -SequenceMatcher(None, name, other[: len(name)]).ratio(), len(other), other

    return sorted(known, key=unlike)[:NEAR]
