"""A network built and tried on tensors without data, so that what it cannot do is known before any work."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sept.backbones.networks import build, layer_ids, retrieval_features, width
from sept.config import Model
from sept.errors import ConfigError

IMAGES = 2
CLASSES = 10
TRUNK_SIDE = 64  # pixels of an image for a trunk, which takes any


def attempt(group: str, role: str, model: Model, sides: Sequence[int], **how: Any) -> None:
    """Do what a network has to do in a role: embed, ibot, moby, classify or trunk.

    group: the setting it comes from. sides: pixels of the square images it has to take; it hands its weights from one
    size to another. Raises ConfigError for what it cannot do.
    """
    with torch.device("meta"), torch.no_grad():
        try:
            ROLES[role](model, sides, **how)
        except ConfigError as error:
            raise ConfigError(
                f"{group}.{error}" if str(error).startswith("model.") else f"{group}.model: {error}"
            ) from None
        except Exception as error:  # timm's networks fail in as many ways as there are
            asked = f"sides of {', '.join(map(str, sides))} pixels" if sides else "images"
            why = str(error).partition("\n")[0] or type(error).__name__
            raise ConfigError(
                f"{group}.model.name={model.name} with {model.args} does not take {asked}: {why}"
            ) from None


def _refuse(model: Model, why: str) -> ConfigError:
    return ConfigError(f"model.name={model.name} with {model.args}: {why}")


def _embed(model: Model, sides: Sequence[int]) -> None:
    """sides: of embedding, and of training if there was one."""
    for vit, images in _each_size(model, sides):
        _require_tokens(model, vit)
        features = retrieval_features(vit, images)
        if features.shape != (IMAGES, 2 * width(vit)):
            raise _refuse(model, "its tokens are not those of a ViT")


def _ibot(model: Model, sides: Sequence[int], drop_path_rate: float) -> None:
    args = {**model.args, "dynamic_img_size": True}
    vit: Any = build(model.name, args, drop_path_rate=drop_path_rate, side=sides[0])
    _require_tokens(model, vit)
    if not all(hasattr(vit, name) for name in ("_pos_embed", "norm_pre", "blocks", "norm")):
        raise _refuse(model, "iBOT trains a plain ViT (vit_*)")
    vit.patch_embed.dynamic_feat_size((sides[0], sides[0]))
    for side in sides:
        images = torch.empty(IMAGES, 3, side, side)
        found = vit.norm(vit.blocks(vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))))
        if found.shape[::2] != (IMAGES, width(vit)):
            raise _refuse(model, "iBOT trains a plain ViT (vit_*)")


def _require_tokens(model: Model, vit: Any) -> None:
    if getattr(vit, "cls_token", None) is None or not getattr(vit, "num_prefix_tokens", 0):
        raise _refuse(model, "a retriever is a ViT with a class token (vit_*)")


def _moby(model: Model, sides: Sequence[int], drop_path_rate: float) -> None:
    for encoder, images in _each_size(model, sides, drop_path_rate=drop_path_rate):
        features = encoder(images)
        if not isinstance(features, Tensor) or features.shape != (IMAGES, width(encoder)):
            raise _refuse(model, "it gives no single vector an image")
        encoder.forward_head(encoder.forward_features(images), pre_logits=True)


def _classify(model: Model, sides: Sequence[int], drop_path_rate: float, batch: int) -> None:
    """sides: of the images, and of those it was pre-trained on."""
    for network, images in _each_size(model, sides, drop_path_rate=drop_path_rate):
        layer_ids(network)
        network.reset_classifier(CLASSES)
        head: Any = network.get_classifier()
        if not isinstance(head, nn.Linear) or head.bias is None or network(images).shape != (IMAGES, CLASSES):
            raise _refuse(model, "finetune=classify needs a linear classifier at its end")
        if batch < IMAGES and any(isinstance(module, _BatchNorm) for module in network.modules()):
            raise ConfigError(
                f"finetune.batch_size={batch}: the batch norm of {model.name} needs at least {IMAGES} images"
            )


def _trunk(model: Model, sides: Sequence[int], least: int, most: int) -> None:
    """sides: of pre-training, if there is one. least, most: maps."""
    from sept.backbones.swin import build_trunk

    trunk = build_trunk(model.name, model.args, None)
    maps = len(trunk.channels)
    if not least <= maps <= most:
        raise ConfigError(
            f"model.args.depths={model.args.get('depths')}: {maps} stages, where {least} to {most} will do"
        )
    trunk(torch.empty(IMAGES, 3, TRUNK_SIDE, TRUNK_SIDE))
    _require_same_weights(
        model, [build(model.name, model.args), *(build(model.name, model.args, side=s) for s in sides)]
    )


def _each_size(model: Model, sides: Sequence[int], **how: Any) -> list[tuple[Any, Tensor]]:
    """The network for each side, and images for it; weights fit all of them, or it is refused."""
    networks = [build(model.name, model.args, side=side, **how).eval() for side in sides]
    _require_same_weights(model, networks)
    return [(each, torch.empty(IMAGES, 3, side, side)) for each, side in zip(networks, sides, strict=True)]


def _require_same_weights(model: Model, networks: Sequence[nn.Module]) -> None:
    shapes = [{name: tuple(each.shape) for name, each in network.named_parameters()} for network in networks]
    for other in shapes[1:]:
        for name in other.keys() | shapes[0].keys():
            if other.get(name) != shapes[0].get(name):
                raise _refuse(
                    model,
                    f"{name} has another shape for images of another size: weights cannot be handed on; use one side",
                )


ROLES: dict[str, Callable[..., None]] = {
    "embed": _embed,
    "ibot": _ibot,
    "moby": _moby,
    "classify": _classify,
    "trunk": _trunk,
}
