"""FLOPs in closed form, a multiply-add being two, so that a plan can name them without importing torch.

Counted: convolutions, linear maps and attention products of forward and backward passes (a backward pass is twice
a forward one). Not counted: norms, activations, optimiser, EMA, augmentation, and what
fused attention computes again in the backward pass. Equal to torch's FlopCounterMode, but for the backward pass of a
depthwise convolution, which torch counts as that of a dense one.
"""

from dataclasses import replace
from typing import Any

from sept.backbones import Backbone

BACKWARD = 2  # times a forward pass
MLP_RATIO = 4
STEM_KERNEL, KERNEL, DEPTHWISE = 7, 3, 7  # pixels: of a ResNet, and of a ConvNeXt's blocks
RESNET_EXPANSION = {"resnet18": 1, "resnet34": 1, "resnet50": 4, "resnet101": 4}  # basic blocks and bottlenecks
STEM_WIDTH = 64  # channels, of a ResNet
RESNET = {"channels": [64, 128, 256, 512], "output_stride": 32}
CONVNEXT = {"depths": [3, 3, 9, 3], "dims": [96, 192, 384, 768], "patch_size": 4, "output_stride": 32}
VIT = {"img_size": 224, "patch_size": 16}
KNOWN: dict[str, dict[str, Any]] = {
    "vit_small_patch16_224": {**VIT, "embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_base_patch16_224": {**VIT, "embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_large_patch16_224": {**VIT, "embed_dim": 1024, "depth": 24, "num_heads": 16},
    "swin_tiny_patch4_window7_224": {
        "img_size": 224,
        "patch_size": 4,
        "window_size": 7,
        "embed_dim": 96,
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
    },
    "resnet18": {"layers": [2, 2, 2, 2], **RESNET},
    "resnet34": {"layers": [3, 4, 6, 3], **RESNET},
    "resnet50": {"layers": [3, 4, 6, 3], **RESNET},
    "resnet101": {"layers": [3, 4, 23, 3], **RESNET},
    "convnext_tiny": CONVNEXT,
}
FREE = {  # values of arguments that change no FLOP; an argument that is not known either is measured
    "dynamic_img_size": (True, False),
    "global_pool": ("token", "avg"),
}


def shape_of(backbone: Backbone) -> dict[str, Any]:
    """What is known of its shape, and its arguments."""
    return KNOWN.get(backbone.architecture, {}) | backbone.args


def is_plain(backbone: Backbone) -> bool:
    """Whether the network's shape is all in `KNOWN` and its arguments: lengths, widths and counts of at least 1."""
    known = KNOWN.get(backbone.architecture)
    if known is None or not all(name in known or value in FREE.get(name, ()) for name, value in backbone.args.items()):
        return False
    shape = shape_of(backbone)
    if not all(_is_like(shape[name], known[name]) for name in known):
        return False
    if "output_stride" in known:  # of convolutional networks: they have four stages, and strides are powers of two
        lists = [value for value in shape.values() if isinstance(value, list)]
        return all(len(value) == 4 for value in lists) and shape["output_stride"] in (8, 16, 32) and _is_patched(shape)
    return len(shape.get("depths", [1])) > 0


def _is_patched(shape: dict[str, Any]) -> bool:
    """A ConvNeXt's patches of two pixels have a stage of their own in timm: measured."""
    return shape.get("patch_size", 4) == 4


def _is_like(value: Any, known: Any) -> bool:
    """A count, or a list of counts, as what is known."""
    if isinstance(known, list):
        return isinstance(value, list) and all(_is_like(each, known[0]) for each in value)
    return type(value) is int and value > 0


def forward_flops(backbone: Backbone, side: int, built: int | None = None) -> float:
    """FLOPs of one image of `side` pixels through the backbone, without a head. built: pixels of the images that it is
    built for, if these are local crops of others."""
    built = built or side
    if not is_plain(backbone):
        return _measured(backbone, side, built)
    shape = shape_of(backbone)
    if "layers" in shape:
        return _resnet(shape, side, RESNET_EXPANSION[backbone.architecture])
    if "dims" in shape:
        return _convnext(shape, side)
    return _swin(shape, side, built) if "depths" in shape else _vit(shape, side)


def training_flops(backbone: Backbone, side: int, built: int | None = None) -> float:
    """FLOPs of one image forward and backward. Pixels need no gradient: the stem's backward pass is one forward."""
    return (1 + BACKWARD) * forward_flops(backbone, side, built) - stem_flops(backbone, side)


def stem_flops(backbone: Backbone, side: int) -> float:
    """FLOPs of one image through what comes first: the patch embedding, or a ResNet's first convolution."""
    shape = shape_of(backbone)
    if is_plain(backbone) and "layers" in shape:
        return _conv(_half(side), STEM_KERNEL, 3, STEM_WIDTH)
    patch, dim = shape.get("patch_size", 0), shape.get("embed_dim", 0) or (shape.get("dims") or [0])[0]
    if _is_like(patch, 1) and _is_like(dim, 1):
        return _stem(patch, dim, side)
    stem = getattr(_built(backbone, side), "patch_embed", None)
    return 0.0 if stem is None else counted_flops(stem, _images(side))  # of other networks: unknown, small


def width(backbone: Backbone) -> int:
    """Channels of the pooled feature."""
    if not is_plain(backbone):
        from sept.backbones.networks import width as width_of

        return width_of(_built(backbone))
    shape = shape_of(backbone)
    if "layers" in shape:
        return int(shape["channels"][-1]) * RESNET_EXPANSION[backbone.architecture]
    if "dims" in shape:
        return int(shape["dims"][-1])
    return shape["embed_dim"] * 2 ** (len(shape["depths"]) - 1) if "depths" in shape else shape["embed_dim"]


def blocks_flops(backbone: Backbone, patches: int) -> float:
    """FLOPs of so many patch tokens, and the tokens that go before them, through a plain ViT's blocks, forward."""
    if is_plain(backbone):
        shape = shape_of(backbone)
        return transformer_flops(patches + prefix_tokens(backbone), shape["embed_dim"], shape["depth"])
    import torch

    tokens = torch.empty(1, patches + prefix_tokens(backbone), width(backbone), device="meta")
    return counted_flops(_built(backbone).blocks, tokens)


def prefix_tokens(backbone: Backbone) -> int:
    """Tokens of a ViT that are no patches: the class token, and registers."""
    return 1 if is_plain(backbone) else int(_built(backbone).num_prefix_tokens)


def patch_side(backbone: Backbone) -> int:
    """Pixels of a side of a patch of a ViT or Swin."""
    if is_plain(backbone):
        return int(shape_of(backbone)["patch_size"])
    return int(_built(backbone).patch_embed.patch_size[0])


def cell_side(backbone: Backbone) -> int:
    """Pixels of a side of a cell of the last map of a Swin."""
    if is_plain(backbone):
        return patch_side(backbone) * 2 ** (len(shape_of(backbone)["depths"]) - 1)
    return int(_built(backbone).feature_info[-1]["reduction"])


def trunk_flops(backbone: Backbone, pixels: int, trains: bool = True) -> float:
    """Forward, and backward if it trains, of an image of so many pixels, by area: about."""
    side = shape_of(backbone).get("img_size", 224)
    return (training_flops if trains else forward_flops)(backbone, side) * pixels / side**2


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
    return _stem(patch, dim, side) + transformer_flops(tokens, dim, shape["depth"])


def transformer_flops(tokens: int, dim: int, depth: int) -> float:
    """FLOPs of so many tokens through so many blocks of a ViT, forward."""
    return float(depth * (_attention(tokens, tokens, dim) + _mlp(tokens, dim)))


def _swin(shape: dict[str, Any], side: int, built: int) -> float:
    patch, dim = shape["patch_size"], shape["embed_dim"]
    grid, whole = side // patch, built // patch
    total = _stem(patch, dim, side)
    for stage, depth in enumerate(shape["depths"]):
        if stage:
            grid, whole = _half(grid), _half(whole)  # an odd grid is padded
            total += 2 * grid**2 * 4 * dim * 2 * dim
            dim *= 2
        fitted = built == shape["img_size"]  # another size keeps its windows: `sized_args`
        window = min(shape["window_size"], whole) if fitted else shape["window_size"]
        padded = -(-grid // window) * window
        total += depth * (_attention(padded**2, window**2, dim) + _mlp(grid**2, dim))
    return total


def _resnet(shape: dict[str, Any], side: int, expansion: int) -> float:
    """As timm has it: the stride of a bottleneck is in its 3 x 3 convolution."""
    grid, stride, width_ = _half(side), 4, STEM_WIDTH
    total = _conv(grid, STEM_KERNEL, 3, width_)
    grid = _half(grid)  # pooled
    for stage, (blocks, inner) in enumerate(zip(shape["layers"], shape["channels"], strict=True)):
        coarser = stage > 0 and stride < shape["output_stride"]
        before, stride, out = grid, stride * (1 + coarser), inner * expansion
        grid = _half(grid) if coarser else grid
        if coarser or width_ != out:  # the way past the first block
            total += _conv(grid, 1, width_, out)
        for block in range(blocks):
            if expansion == 1:
                total += _conv(grid, KERNEL, width_, inner) + _conv(grid, KERNEL, inner, inner)
            else:
                total += _conv(before if block == 0 else grid, 1, width_, inner)
                total += _conv(grid, KERNEL, inner, inner) + _conv(grid, 1, inner, out)
            width_ = out
    return total


def _convnext(shape: dict[str, Any], side: int) -> float:
    patch, width_ = shape["patch_size"], shape["dims"][0]
    grid, stride, total = side // patch, patch, _stem(patch, width_, side)
    for stage, (blocks, dim) in enumerate(zip(shape["depths"], shape["dims"], strict=True)):
        if stage and stride < shape["output_stride"]:
            grid, stride = grid // 2, 2 * stride
        if stage:
            total += _conv(grid, 2, width_, dim)
        total += blocks * (2.0 * grid**2 * DEPTHWISE**2 * dim + _mlp(grid**2, dim))
        width_ = dim
    return total


def _half(length: int) -> int:
    return (length + 1) // 2


def _conv(grid: int, kernel: int, channels: int, out: int) -> float:
    """To a square of `grid` cells."""
    return 2.0 * grid**2 * kernel**2 * channels * out


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


def _measured(backbone: Backbone, side: int, built: int) -> float:
    from sept.backbones.networks import any_side

    args = backbone.args if side == built else any_side(backbone.name, backbone.args, built)
    return counted_flops(_built(replace(backbone, args=args), built), _images(side))


def _images(side: int) -> Any:
    """One without data."""
    import torch

    return torch.empty(1, 3, side, side, device="meta")
