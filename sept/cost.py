"""FLOPs in closed form, a multiply-add being two, so that a plan can name them without importing torch.

Counted: convolutions, linear maps and attention products of forward and backward passes (a backward pass is twice
a forward one), and the products of the search. Not counted: norms, activations, optimiser, EMA, augmentation, and what
fused attention computes again in the backward pass. Equal to torch's FlopCounterMode (tests/test_cost.py).
"""

from typing import Any

from sept.config import Classify, Compute, Detect, Finetune, IBotRecipe, Model, Pretrain, Segment
from sept.errors import ConfigError
from sept.ranges import MOST_EPOCHS

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


def is_plain(model: Model) -> bool:
    """Whether the network's shape is all in `KNOWN` and its arguments: lengths, widths and counts of at least 1."""
    known = KNOWN.get(model.name)
    if known is None or not model.args.keys() <= known.keys() | FREE:
        return False
    shape = known | model.args
    return all(_is_like(shape[name], known[name]) for name in known) and len(shape.get("depths", [1])) > 0


def _is_like(value: Any, known: Any) -> bool:
    """A count, or a list of counts, as what is known."""
    if isinstance(known, list):
        return isinstance(value, list) and all(_is_like(each, known[0]) for each in value)
    return type(value) is int and value > 0


def forward_flops(model: Model, side: int) -> float:
    """FLOPs of one image of `side` pixels through the backbone, without a head."""
    if not is_plain(model):
        return _measured(model, side)
    shape = KNOWN[model.name] | model.args
    return _swin(shape, side) if "depths" in shape else _vit(shape, side)


def training_flops(model: Model, side: int) -> float:
    """FLOPs of one image forward and backward. Pixels need no gradient: the stem's backward pass is one forward."""
    forward, shape = forward_flops(model, side), KNOWN.get(model.name, {}) | model.args
    patch, dim = shape.get("patch_size", 0), shape.get("embed_dim", 0)
    stem = _stem(patch, dim, side) if _is_like(patch, 1) and _is_like(dim, 1) else 0.0  # else: unknown, small
    return (1 + BACKWARD) * forward - stem


def width(model: Model) -> int:
    """Channels of the pooled feature."""
    if not is_plain(model):
        return _built(model).num_features
    shape = KNOWN[model.name] | model.args
    return shape["embed_dim"] * 2 ** (len(shape["depths"]) - 1) if "depths" in shape else shape["embed_dim"]


def moby_flops(recipe: Pretrain, steps: int) -> float:
    """MoBy: two views through the online branch and predictor with gradient, and through the target without."""
    hidden, out = recipe.hidden_dim, recipe.out_dim
    encoder = forward_flops(recipe.model, recipe.side)
    projector = 2 * hidden * (width(recipe.model) + out)
    predictor = 2 * hidden * (out + out)
    logits = 2 * out * recipe.queue
    online = training_flops(recipe.model, recipe.side) + (1 + BACKWARD) * (projector + predictor) + 2 * logits
    view = online + encoder + projector
    return 2.0 * view * recipe.batch_size * steps


def ibot_flops(recipe: IBotRecipe, model: Model, steps: int) -> float:
    """iBOT: two global crops through student and teacher with all their tokens, local crops through the student."""
    model = Model(model.name, {**model.args, "dynamic_img_size": True})  # as the learner builds it, for local crops
    dim = width(model)
    patch = (KNOWN.get(model.name, {}) | model.args).get("patch_size", 16)
    head = 2 * (
        dim * recipe.head_hidden_dim
        + recipe.head_hidden_dim * (recipe.head_hidden_dim + recipe.head_bottleneck_dim)
        + recipe.head_bottleneck_dim * recipe.out_dim
    )
    tokens = (recipe.side // patch) ** 2 + 1
    student = training_flops(model, recipe.side) + (1 + BACKWARD) * tokens * head
    teacher = forward_flops(model, recipe.side) + tokens * head
    local = training_flops(model, recipe.local_side) + (1 + BACKWARD) * head
    return (2 * (student + teacher) + recipe.local_crops * local) * recipe.batch_size * steps


def finetune_flops(recipe: Finetune, model: Model, classes: int, images: int) -> float:
    """`images` training images, each time they are seen, through the model and its head; of detectors and segmenters,
    for a plan, about: the trunk alone at the size of a test image or of a crop."""
    match recipe:
        case Classify():
            return (training_flops(model, recipe.side) + (1 + BACKWARD) * 2 * width(model) * classes) * images
        case Detect():
            return _trunk_flops(model, recipe.test_short_side * recipe.long_side) * images
        case Segment():
            return _trunk_flops(model, recipe.side**2) * images
    raise AssertionError(f"no count for {recipe}")


def _trunk_flops(model: Model, pixels: int) -> float:
    """Forward and backward, by area."""
    side = (KNOWN.get(model.name, {}) | model.args).get("img_size", 224)
    return training_flops(model, side) * pixels / side**2


def counted_flops(network: Any, *inputs: Any) -> float:
    """FLOPs of one forward pass in eval mode, counted by torch: of networks without a closed form here."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    training = network.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(*inputs)
    network.train(training)
    return float(counter.get_total_flops())


def search_flops(rows: int, queries: int, dim: int) -> float:
    """The products of an exact scan."""
    return 2.0 * rows * queries * dim


def pretrain_epochs(compute: Compute, recipe: Pretrain, images: int) -> int:
    """Epochs asked for, or those a FLOP budget pays for (at least one). Raises ConfigError when it pays for none."""
    if compute.epochs is not None:
        return compute.epochs
    assert compute.flops is not None
    epoch = moby_flops(recipe, images // recipe.batch_size)
    if compute.flops < epoch:
        raise ConfigError(f"compute.flops={compute.flops:g} does not pay for one epoch, which takes {epoch:.3g}")
    if compute.flops / epoch > MOST_EPOCHS:
        raise ConfigError(
            f"compute.flops={compute.flops:g} pays for more than {MOST_EPOCHS:,} epochs of {epoch:.3g} each"
        )
    return int(compute.flops // epoch)


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


def _built(model: Model, side: int | None = None) -> Any:
    import torch

    from sept.backbones.networks import build

    with torch.device("meta"):
        return build(model.name, model.args, side=side)


def _measured(model: Model, side: int) -> float:
    import torch

    return counted_flops(_built(model, side), torch.empty(1, 3, side, side, device="meta"))
