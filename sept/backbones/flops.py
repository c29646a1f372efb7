"""FLOPs in closed form, a multiply-add being two, so that a plan can name them without importing torch.

Counted: convolutions, linear maps and attention products of forward and backward passes (a backward pass is twice
a forward one). Not counted: norms, activations, optimiser, EMA, augmentation, and what
fused attention computes again in the backward pass. Equal to torch's FlopCounterMode (tests/test_flops.py).
"""

from typing import Any

from sept.backbones import Backbone

BACKWARD = 2  # times a forward pass
MLP_RATIO = 4
KNOWN: dict[str, dict[str, Any]] = {
    "vit_small_patch16_224": {"img_size": 224, "patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_base_patch16_224": {"img_size": 224, "patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_large_patch16_224": {"img_size": 224, "patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16},
    "swin_tiny_patch4_window7_224": {
        "img_size": 224,
        "patch_size": 4,
        "window_size": 7,
        "embed_dim": 96,
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
    },
}
FREE = {"dynamic_img_size"}  # changes no FLOP; an argument that is not known either is measured


def is_plain(backbone: Backbone) -> bool:
    """Whether the network's shape is all in `KNOWN` and its arguments: lengths, widths and counts of at least 1."""
    known = KNOWN.get(backbone.name)
    if known is None or not backbone.args.keys() <= known.keys() | FREE:
        return False
    shape = known | backbone.args
    return all(_is_like(shape[name], known[name]) for name in known) and len(shape.get("depths", [1])) > 0


def _is_like(value: Any, known: Any) -> bool:
    """A count, or a list of counts, as what is known."""
    if isinstance(known, list):
        return isinstance(value, list) and all(_is_like(each, known[0]) for each in value)
    return type(value) is int and value > 0


def forward_flops(backbone: Backbone, side: int) -> float:
    """FLOPs of one image of `side` pixels through the backbone, without a head."""
    if not is_plain(backbone):
        return _measured(backbone, side)
    shape = KNOWN[backbone.name] | backbone.args
    return _swin(shape, side) if "depths" in shape else _vit(shape, side)


def training_flops(backbone: Backbone, side: int) -> float:
    """FLOPs of one image forward and backward. Pixels need no gradient: the stem's backward pass is one forward."""
    forward, shape = forward_flops(backbone, side), KNOWN.get(backbone.name, {}) | backbone.args
    patch, dim = shape.get("patch_size", 0), shape.get("embed_dim", 0)
    stem = _stem(patch, dim, side) if _is_like(patch, 1) and _is_like(dim, 1) else 0.0  # else: unknown, small
    return (1 + BACKWARD) * forward - stem


def width(backbone: Backbone) -> int:
    """Channels of the pooled feature."""
    if not is_plain(backbone):
        return _built(backbone).num_features
    shape = KNOWN[backbone.name] | backbone.args
    return shape["embed_dim"] * 2 ** (len(shape["depths"]) - 1) if "depths" in shape else shape["embed_dim"]


def trunk_flops(backbone: Backbone, pixels: int) -> float:
    """Forward and backward of an image of so many pixels, by area: about."""
    side = (KNOWN.get(backbone.name, {}) | backbone.args).get("img_size", 224)
    return training_flops(backbone, side) * pixels / side**2


def counted_flops(network: Any, *inputs: Any) -> float:
    """FLOPs of one forward pass in eval mode, counted by torch: of networks without a closed form here."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    training = network.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(*inputs)
    network.train(training)
    return float(counter.get_total_flops())


def _vit(shape: dict[str, Any], side: int) -> float:
    patch, dim = shape["patch_size"], shape["embed_dim"]
    tokens = (side // patch) ** 2 + 1
    return _stem(patch, dim, side) + shape["depth"] * (_attention(tokens, tokens, dim) + _mlp(tokens, dim))


def _swin(shape: dict[str, Any], side: int) -> float:
    patch, dim = shape["patch_size"], shape["embed_dim"]
    grid = side // patch
    total = _stem(patch, dim, side)
    for stage, depth in enumerate(shape["depths"]):
        if stage:
            grid = (grid + 1) // 2  # an odd grid is padded
            total += 2 * grid**2 * 4 * dim * 2 * dim
            dim *= 2
        window = min(shape["window_size"], grid) if side == shape["img_size"] else shape["window_size"]  # `sized_args`
        padded = -(-grid // window) * window
        total += depth * (_attention(padded**2, window**2, dim) + _mlp(grid**2, dim))
    return total


def _stem(patch: int, dim: int, side: int) -> float:
    """The patch embedding of an RGB image."""
    return 2.0 * (side // patch) ** 2 * 3 * patch**2 * dim


def _attention(tokens: int, keys: int, dim: int) -> int:
    return 2 * tokens * dim * (3 * dim + dim) + 2 * 2 * tokens * keys * dim


def _mlp(tokens: int, dim: int) -> int:
    return 2 * 2 * tokens * dim * MLP_RATIO * dim


def _built(backbone: Backbone, side: int | None = None) -> Any:
    import torch

    from sept.backbones.networks import build

    with torch.device("meta"):
        return build(backbone.name, backbone.args, side=side)


def _measured(backbone: Backbone, side: int) -> float:
    import torch

    return counted_flops(_built(backbone, side), torch.empty(1, 3, side, side, device="meta"))
