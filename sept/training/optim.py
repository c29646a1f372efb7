"""Learning-rate, weight-decay and momentum schedules as functions of the step, parameter groups, precision of losses.

Schedules hold no state: a resumed run computes what an uninterrupted one would have.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DROP = 700 / 800  # of the steps, after which the rate drops (SimMIM)
UNDECAYED = ("relative_position_bias_table", "pos_embed", "cls_token", "reg_token")


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """Half a cosine from `start` at step 0 to `end` at `steps`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def warmup_cosine(step: int, steps: int, warmup: int, peak: float, first: float, last: float) -> float:
    """Linear from `first` over `warmup` steps, then the cosine from `peak` to `last` over all `steps`.

    The cosine is measured from step 0, as timm's scheduler without warmup_prefix does (MoBy and SimMIM released
    configs), so the rate dips a little when warm-up ends. timm updates after a step, by the number of
    steps done before it: steps 0 and 1 both run at `first`.
    """
    done = max(step - 1, 0)
    if done < warmup:
        return first + (peak - first) * done / warmup
    return cosine(done, steps, peak, last)


def warmup_constant(step: int, steps: int, warmup: int, peak: float, first: float, last: float) -> float:
    """Linear from `first` over `warmup` steps, then `peak`: SEPT's "fixed learning rate" taken literally."""
    done = max(step - 1, 0)
    return first + (peak - first) * done / warmup if done < warmup else peak


def warmup_step(step: int, steps: int, warmup: int, peak: float, first: float, last: float) -> float:
    """Linear from `first` over `warmup` steps, then `peak`, and `last` in the last eighth of the steps (SimMIM released
    configs of 800 epochs). Counted as in `warmup_cosine`."""
    if max(step - 1, 0) >= DROP * steps:
        return last
    return warmup_constant(step, steps, warmup, peak, first, last)


def warmup_then_cosine(step: int, steps: int, warmup: int, peak: float, first: float, last: float) -> float:
    """Linear from `first` over `warmup` steps, then half a cosine over the remaining ones (SimCLR, BYOL, MAE, MoCo v3
    released code)."""
    if step < warmup:
        return first + (peak - first) * step / warmup
    return cosine(step - warmup, max(steps - warmup, 1), peak, last)


SCHEDULES: dict[str, Callable[..., float]] = {
    "cosine": warmup_cosine,
    "cosine_after_warmup": warmup_then_cosine,
    "constant": warmup_constant,
    "step": warmup_step,
}


def ibot_lr(step: int, steps: int, warmup: int, peak: float, last: float) -> float:
    """Linear from 0 over `warmup` steps, then a cosine over the remaining ones (DINO and iBOT released code)."""
    if step < warmup:
        return peak * step / max(warmup - 1, 1)
    return cosine(step - warmup, steps - warmup, peak, last)


def linear_epochs(epoch: int, warmup: int, first: float, last: float) -> float:
    """Linear per epoch from `first` to `last` over `warmup` epochs (numpy.linspace), then flat (iBOT temperatures)."""
    if epoch >= warmup:
        return last
    return first + (last - first) * epoch / max(warmup - 1, 1)


def undecayed(name: str, parameter: Tensor) -> bool:
    """Parameters that MoBy, iBOT and SimMIM do not decay: one-dimensional ones and biases."""
    return parameter.ndim <= 1 or name.endswith(".bias")


def decay_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    skip: Callable[[str, Tensor], bool] = undecayed,
) -> list[dict]:
    """Two AdamW groups, the decayed and the others; each names `scale`, the factor on the learning rate, and whether it
    `decays`, which a decay that begins at 0 does not tell."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in named:
        if parameter.requires_grad:
            (plain if skip(name, parameter) else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay, "scale": 1.0, "decays": True},
        {"params": plain, "weight_decay": 0.0, "scale": 1.0, "decays": False},
    ]


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose steps are proportional to the norm of the weights (You et al. 2017; the released code of
    BYOL and MoCo v3).

    For a weight p of more than one dimension with gradient g: g := g + weight_decay p, then g := g trust |p| / |g| if
    both norms are positive. Then u := momentum u + g and p := p - lr u. Of one dimension: neither decay nor trust
    ratio. SimCLR's code has u := momentum u + lr g and p := p - u: the same at a constant rate, and nearly so where a
    schedule changes little in the ten steps that momentum averages over.
    """

    def __init__(self, groups: list[dict], lr: float, momentum: float = 0.9, trust: float = 1e-3) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            plain = [p for p in trained if p.ndim <= 1]
            scaled = [p for p in trained if p.ndim > 1]
            self._move(group, plain, _gradients(plain))
            self._move(group, scaled, _trusted(scaled, group["weight_decay"], group["trust"]))
        return loss

    def _move(self, group: dict, weights: list[Tensor], gradients: list[Tensor]) -> None:
        """The step of momentum, of some weights of a group."""
        if not weights:
            return
        for p in weights:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        moving = [self.state[p]["momentum"] for p in weights]
        torch._foreach_mul_(moving, group["momentum"])
        torch._foreach_add_(moving, gradients)
        torch._foreach_add_(weights, moving, alpha=-group["lr"])


def _gradients(weights: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in weights if p.grad is not None]


def _trusted(weights: list[Tensor], decay: float, trust: float) -> list[Tensor]:
    """The gradients of some weights with their decay, as long as `trust` times the weights; as they are where either is
    nought. Without waiting for the device."""
    if not weights:
        return []
    gradients = list(torch._foreach_add(_gradients(weights), weights, alpha=decay))
    lengths, slopes = (torch.stack(torch._foreach_norm(each)) for each in (weights, gradients))
    ratios = torch.where((lengths > 0) & (slopes > 0), trust * lengths / slopes, torch.ones_like(slopes))
    torch._foreach_mul_(gradients, list(ratios.unbind()))
    return gradients


def transfer_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """For a detector or segmenter: all is decayed except LayerNorms, relative position tables (Swin's code), and
    position embeddings and tokens of ViTs."""
    norms = {id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}

    def undecayed(name: str, parameter: Tensor) -> bool:
        return id(parameter) in norms or name.endswith(UNDECAYED)

    return decay_groups(model.named_parameters(), weight_decay, undecayed)


def layer_decay_groups(
    model: nn.Module, layer_of: Callable[[str], int], layers: int, weight_decay: float, decay: float
) -> list[dict]:
    """AdamW groups with `scale` = decay ** (layers - 1 - layer), decayed and not (SimMIM fine-tuning).

    `layer_of(name)` is the layer id of a parameter, 0 for the stem and `layers` - 1 for the head. Parameters that the
    timm model exempts are not decayed either: Swin's relative position bias tables, unlike in the released MoBy
    pre-training, and a ViT's position embedding and tokens.
    """
    declared: set[str] = getattr(model, "no_weight_decay", set)()  # type: ignore[operator]
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        plain = undecayed(name, parameter) or name in declared
        groups.setdefault((layer_of(name), plain), []).append(parameter)
    return [
        {"params": params, "weight_decay": 0.0 if plain else weight_decay, "scale": decay ** (layers - 1 - layer)}
        for (layer, plain), params in sorted(groups.items(), key=lambda item: item[0])
    ]


def at_least_single(x: Tensor) -> Tensor:
    """`x` in float32, or unchanged if it is more precise: sums over classes need more than half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """(n, m) of vectors (n, D) and (m, D), at least in float32 under autocast too: divided by a temperature of 0.1,
    cosines in bfloat16 are off by up to 0.04."""
    with torch.autocast(first.device.type, enabled=False):
        x, y = (F.normalize(at_least_single(each), dim=1) for each in (first, second))
        return x @ y.T
