"""A network built and tried on tensors without data, so that what it cannot do is known before any work."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.networks import DROP_PATH, NoDropPath, any_side, build, has_batch_norm, layer_ids, tokens, width
from sept.backbones.weights import DERIVED
from sept.errors import ConfigError
from sept.runtime.named import load

IMAGES = 2
CLASSES = 10
FINE_TUNED = ("classify", "trunk")  # roles
TRAINED = {"backbone": "pretrain", "retriever.backbone": "retriever.train"}  # where a network's recipe stands
TRUNK_SIDE = 64  # pixels of an image for a trunk, which takes any


def attempt(
    key: str, role: str, backbone: Backbone, sides: Sequence[int], needs: Sequence[str] = (), **how: Any
) -> None:
    """Do what a network has to do in a role: embed, pretrain, classify or trunk.

    key: the setting that names it. sides: pixels of the square images it has to take; it hands its weights from one
    size to another. needs: of OFFERS. Raises ConfigError for what it cannot do.
    """
    with torch.device("meta"), torch.no_grad():
        try:
            if needs:
                _require_offers(backbone, sides, needs)
            ROLES[role](backbone, sides, **how)
        except NoDropPath:
            option = f"{'finetune' if role in FINE_TUNED else TRAINED[key]}.{DROP_PATH}"
            raise ConfigError(
                f"{option}={how[DROP_PATH]}: {backbone.name} has no stochastic depth; set {option}=0"
            ) from None
        except ConfigError as error:
            message = str(error)
            raise ConfigError(
                f"{key}.{message.removeprefix('backbone.')}" if message.startswith("backbone.") else f"{key}: {message}"
            ) from None
        except Exception as error:  # timm's networks fail in as many ways as there are
            asked = f"sides of {', '.join(map(str, sides))} pixels" if sides else "images"
            why = str(error).partition("\n")[0] or type(error).__name__
            raise ConfigError(f"{key}.name={backbone.name} with {backbone.args} does not take {asked}: {why}") from None


def require_published(option: str, key: str, backbone: Backbone, build: Callable[[Backbone], nn.Module]) -> None:
    """ConfigError where the network's arguments give it other tensors than its published weights have.

    option: the setting that asks for those. key: the one that holds the network. build: of the network's library.
    """
    with torch.device("meta"):
        own, published = (_shapes(build(each)) for each in (backbone, Backbone(backbone.name)))
    apart = sorted(name for name in own.keys() | published.keys() if own.get(name) != published.get(name))
    if apart:
        raise ConfigError(
            f"{option}=hub: the published weights of {backbone.name} do not fit {key}.args={backbone.args}, which "
            f"change {apart[0]}: write {key}.name={backbone.name} without them, or give a file: {option}=FILE"
        )


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items() if not name.endswith(DERIVED)}


def _refuse(backbone: Backbone, why: str) -> ConfigError:
    return ConfigError(f"backbone.name={backbone.name} with {backbone.args}: {why}")


def _offers_pooled(network: Any, images: Tensor) -> bool:
    features = network(images)
    return isinstance(features, Tensor) and features.shape == (IMAGES, width(network))


def _offers_tokens(network: Any, images: Tensor) -> bool:
    return _is_vit(network) and tokens(network, images)[1].shape[::2] == (IMAGES, width(network))


def _offers_cls(network: Any, images: Tensor) -> bool:
    return _is_vit(network) and getattr(network, "cls_token", None) is not None and bool(network.num_prefix_tokens)


def _offers_positions(network: Any, images: Tensor) -> bool:
    return isinstance(getattr(network, "pos_embed", None), Tensor)


def _offers_plain_vit(network: Any, images: Tensor) -> bool:
    """Whether its features are its parts applied in turn, so that patches can be masked: EVA's, say, are not."""
    if not all(hasattr(network, name) for name in ("_pos_embed", "norm_pre", "blocks", "norm", "patch_embed")):
        return False
    placed = network._pos_embed(network.patch_embed(images))
    if not isinstance(placed, Tensor):  # or with rotations for every block
        return False
    return network.norm(network.blocks(network.norm_pre(placed))).shape == network.forward_features(images).shape  # type: ignore


def _offers_normed_tokens(network: Any, images: Tensor) -> bool:
    """timm's ViTs with global_pool=avg have their norm behind the average."""
    return not isinstance(getattr(network, "norm", nn.Identity()), nn.Identity)


def _offers_plain_swin(network: Any, images: Tensor) -> bool:
    """Whether its features are those of patches (B, H, W, C) in stages, so that patches can be masked."""
    if not all(hasattr(network, name) for name in ("patch_embed", "layers", "norm", "feature_info")):
        return False
    patches = network.patch_embed(images)
    map_ = network.norm(network.layers(patches))
    return patches.ndim == map_.ndim == 4 and map_.shape == network.forward_features(images).shape  # type: ignore


def _is_vit(network: Any) -> bool:
    return hasattr(network, "num_prefix_tokens") and hasattr(network, "forward_features")


OFFERS: dict[str, tuple[Callable[[Any, Tensor], bool], str]] = {
    "pooled": (_offers_pooled, "it gives no single vector an image"),
    "tokens": (_offers_tokens, "its tokens are not those of a ViT (vit_*)"),
    "cls": (_offers_cls, "it has no class token; most ViTs (vit_*) have one"),
    "positions": (_offers_positions, "it has no embedding of positions; most ViTs (vit_*) have one"),
    "plain_vit": (_offers_plain_vit, "it is no plain ViT (vit_*)"),
    "normed_tokens": (_offers_normed_tokens, "its tokens pass no norm before they are averaged; global_pool=token"),
    "plain_swin": (_offers_plain_swin, "it is no Swin (swin_*)"),
}
"""What networks may offer to methods and retrievers: how it is tried, and what is said of one that does not."""


def _require_offers(backbone: Backbone, sides: Sequence[int], needs: Sequence[str]) -> None:
    network: Any = build(backbone.name, backbone.args, side=sides[0]).eval()
    for name in needs:
        offered, otherwise = OFFERS[name]
        if not offered(network, torch.empty(IMAGES, 3, sides[0], sides[0])):
            raise _refuse(backbone, otherwise)


def _embed(backbone: Backbone, sides: Sequence[int], function: str, times: int) -> None:
    """sides: of embedding, and of training if there was one. function: "module:function" that takes a feature, times as
    wide as the network."""
    take = load(function)
    for network, images in _each_size(backbone, sides):
        if take(network, images).shape != (IMAGES, times * width(network)):
            raise _refuse(backbone, f"it has no feature {take.__name__}")


def _pretrain(
    backbone: Backbone, sides: Sequence[int], drop_path_rate: float, devices: int = 1, chunk: int | None = None
) -> None:
    """sides: of all views. chunk: images at a time."""
    args = any_side(backbone.name, backbone.args, sides[0]) if len(sides) > 1 else backbone.args
    network: Any = build(backbone.name, args, drop_path_rate=drop_path_rate, side=sides[0]).eval()
    shares = {"hardware.devices": devices if devices > 1 else None, "hardware.chunk": chunk}
    for key, value in shares.items():
        if value is not None and has_batch_norm(network):
            raise ConfigError(f"{key}={value}: the batch norm of {backbone.name} has to see whole batches")
    for side in sides:
        network.forward_head(network.forward_features(torch.empty(IMAGES, 3, side, side)), pre_logits=True)


def _classify(backbone: Backbone, sides: Sequence[int], drop_path_rate: float, batch: int) -> None:
    """sides: of the images, and of those it was pre-trained on."""
    for network, images in _each_size(backbone, sides, drop_path_rate=drop_path_rate):
        layer_ids(network)
        network.reset_classifier(CLASSES)
        head: Any = network.get_classifier()
        if not isinstance(head, nn.Linear) or head.bias is None or network(images).shape != (IMAGES, CLASSES):
            raise _refuse(backbone, "finetune=classify needs a linear classifier at its end")
        if batch < IMAGES and has_batch_norm(network):
            raise ConfigError(
                f"finetune.batch_size={batch}: the batch norm of {backbone.name} needs at least {IMAGES} images"
            )


def _trunk(
    backbone: Backbone, sides: Sequence[int], least: int, most: int, maps: str, drop_path_rate: float = 0.0
) -> None:
    """sides: of pre-training, if there is one. least, most: how many maps there must be. maps: as in `build_trunk`."""
    from sept.backbones.families import TRUNKS, build_trunk

    trunk = build_trunk(backbone, None, drop_path_rate, maps)
    if not least <= len(trunk.channels) <= most:
        raise _refuse(backbone, f"it has maps of {len(trunk.channels)} sizes, where {least} to {most} will do")
    try:
        trunk(torch.empty(IMAGES, 3, TRUNK_SIDE, TRUNK_SIDE))
    except Exception as error:  # timm's networks fail in as many ways as there are
        why = str(error).partition("\n")[0] or type(error).__name__
        raise _refuse(
            backbone, f"it takes no images of any size, for detection and segmentation; {TRUNKS} ({why})"
        ) from None
    _require_same_weights(
        backbone, [build(backbone.name, backbone.args), *(build(backbone.name, backbone.args, side=s) for s in sides)]
    )


def _each_size(backbone: Backbone, sides: Sequence[int], **how: Any) -> list[tuple[Any, Tensor]]:
    """The network for each side, and images for it; weights fit all of them, or it is refused."""
    networks = [build(backbone.name, backbone.args, side=side, **how).eval() for side in sides]
    _require_same_weights(backbone, networks)
    return [(each, torch.empty(IMAGES, 3, side, side)) for each, side in zip(networks, sides, strict=True)]


def _require_same_weights(backbone: Backbone, networks: Sequence[nn.Module]) -> None:
    shapes = [{name: tuple(each.shape) for name, each in network.named_parameters()} for network in networks]
    for other in shapes[1:]:
        for name in other.keys() | shapes[0].keys():
            if other.get(name) != shapes[0].get(name):
                raise _refuse(
                    backbone,
                    f"{name} has another shape for images of another size: weights cannot be handed on; use one side",
                )


ROLES: dict[str, Callable[..., None]] = {
    "embed": _embed,
    "pretrain": _pretrain,
    "classify": _classify,
    "trunk": _trunk,
}
