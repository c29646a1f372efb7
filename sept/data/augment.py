"""Batched views on the device: random resized crops, then flip, colour, blur, solarise and normalise.

What is done is drawn on the CPU as a pure function of a generator; doing it draws nothing. Images are RGB, float
operations expect [0, 1]. B batch, H and W pixels. Operations as torchvision's, steps in the order of MoBy and iBOT.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.amp import is_autocast_available
from torch.nn.functional import interpolate

from sept.backbones import IMAGENET, Statistics
from sept.data.colour import EAGER, Operations, blur_kernels, on_cpu
from sept.data.transforms import BOX_TRIES, BOX_UNIFORMS, Interpolation, boxes_from_uniforms, normalise_
from sept.runtime.device import send

BLUR_REFERENCE_SIDE = 224  # the published blur radii are pixels of 224-pixel views
_BLUR_SIGMAS = 3  # the kernel is cut there; what is lost is under 0.3 %
_CHUNK_BYTES = 2**22  # of float32 pixels at a time on CPUs: the fastest of 2**18 to 2**22
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_IDENTITY = (1.0, 1.0, 1.0, 0.0)  # the factors that change nothing
_NEVER = 4  # the turn of hue where it is not shifted


@dataclass(frozen=True)
class Policy:
    """How strongly to augment; flip, jitter, grayscale, blur and solarise are probabilities."""

    flip: float
    jitter: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    grayscale: float
    blur: float
    blur_radius: tuple[float, float]  # standard deviation, in pixels of the view
    solarise: float


@dataclass(frozen=True)
class Draws:
    """What happens to each image of a batch; CPU tensors."""

    flip: Tensor  # (B,) bool
    factors: Tensor  # (B, 4) float32: brightness, contrast, saturation, hue; 1, 1, 1, 0 where there is no jitter
    order: Tensor  # (B, 4) int64: which of those four comes first, second, third, last
    grayscale: Tensor  # (B,) bool
    sigma: Tensor  # (B,) float32, pixels; 0 where there is no blur
    solarise: Tensor  # (B,) bool
    reach: int  # pixels the blur looks to each side

    def __getitem__(self, rows: slice) -> Self:
        tensors = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "reach"}
        return replace(self, **tensors)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Those of one batch after the other; all of one reach."""
        names = [f.name for f in fields(cls) if f.name != "reach"]
        tensors: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return replace(parts[0], **tensors)


def scaled_blur_radius(low: float, high: float, side: int) -> tuple[float, float]:
    """Radii given for 224-pixel views, in pixels of a view of this side."""
    return low * side / BLUR_REFERENCE_SIDE, high * side / BLUR_REFERENCE_SIDE


def draw_parameters(generator: torch.Generator, batch_size: int, policy: Policy) -> Draws:
    """Draws for a batch. Those for a smaller batch are the first rows of those for a larger one."""
    uniforms = torch.rand(batch_size, 14, generator=generator, dtype=torch.float64)
    flip, jitter, grayscale, blur, radius, solarise = uniforms[:, :6].unbind(1)
    spans = torch.tensor([policy.brightness, policy.contrast, policy.saturation, policy.hue], dtype=torch.float64)
    identity = torch.tensor(_IDENTITY, dtype=torch.float64)
    lowest = torch.tensor([0.0, 0.0, 0.0, -policy.hue], dtype=torch.float64).maximum(identity - spans)
    factors = lowest + uniforms[:, 6:10] * (identity + spans - lowest)
    low, high = policy.blur_radius
    return Draws(
        flip=flip < policy.flip,
        factors=torch.where((jitter < policy.jitter)[:, None], factors, identity).float(),
        order=uniforms[:, 10:].argsort(dim=1),
        grayscale=grayscale < policy.grayscale,
        sigma=torch.where(blur < policy.blur, low + radius * (high - low), 0.0).float(),
        solarise=solarise < policy.solarise,
        reach=math.ceil(_BLUR_SIGMAS * high),
    )


@dataclass(frozen=True)
class _Plan:
    """Draws in the order in which a batch is worked on, sorted by when the hue is shifted: those rows lie together.

    tensors: rows (B,) of the batch in that order and the places (B,) they return to; weights (3, 4, B) of the four
    blends and shifts (B,) of hue, in that order; where in it are the (F,) flipped, (G,) grey, (R,) blurred and (S,)
    solarised ones; (R, reach + 1) kernels.
    """

    tensors: dict[str, Tensor]
    bounds: tuple[
        int, ...
    ]  # 0, and where the rows end whose hue is shifted first, .., last, not at all though jittered

    @classmethod
    def of(cls, draws: Draws) -> Self:
        shifts = draws.factors[:, _HUE]
        group = (draws.order == _HUE).int().argmax(dim=1)
        group[shifts == 0] = _NEVER
        group[(draws.factors == torch.tensor(_IDENTITY)).all(dim=1)] = _NEVER + 1
        rows = group.argsort(stable=True)
        counts = group.bincount(minlength=_NEVER + 2)[: _NEVER + 1]
        sigma = draws.sigma[rows]
        tensors = {"rows": rows, "places": rows.argsort(), "weights": _blends(draws.factors[rows], draws.order[rows])}
        tensors |= {"shifts": shifts[rows], "kernels": blur_kernels(sigma[sigma > 0], draws.reach)}
        chosen = {"flip": draws.flip[rows], "grey": draws.grayscale[rows], "blur": sigma > 0}
        chosen["solarise"] = draws.solarise[rows]
        tensors |= {name: mask.nonzero().squeeze(1) for name, mask in chosen.items()}
        return cls(tensors, (0, *counts.cumsum(0).tolist()))

    def to(self, device: torch.device) -> Self:
        """The same on the device, in one copy."""
        return replace(self, tensors=dict(zip(self.tensors, send(list(self.tensors.values()), device), strict=True)))

    def shifted(self, turn: int) -> slice:
        """The rows whose hue is shifted in this turn of the four."""
        return slice(self.bounds[turn], self.bounds[turn + 1])

    def blended(self, turn: int) -> list[slice]:
        """The other rows that have jitter."""
        parts = slice(0, self.bounds[turn]), slice(self.bounds[turn + 1], self.bounds[-1])
        return [part for part in parts if part.start < part.stop]


def _blends(factors: Tensor, order: Tensor) -> Tensor:
    """(3, 4, B) weights of each image's blend in each turn, see `colour.blend_`; while its hue is shifted it stays."""
    operations = order.T
    own = torch.where(operations == _HUE, 1.0, factors.gather(1, order).T)
    rest = 1 - own
    return torch.stack([own, rest * (operations == _CONTRAST), rest * (operations == _SATURATION)])


def _jitter_(images: Tensor, plan: _Plan, by: Operations) -> None:
    """The four colour operations, in each image's own order."""
    weights, shifts = plan.tensors["weights"], plan.tensors["shifts"]
    for turn in range(4):
        # On CPUs all rows: of a single one the mean luma may have other bits.
        parts = [slice(None)] if on_cpu(images) else plan.blended(turn)
        for part in parts if plan.bounds[-1] else []:
            by.blend_(images[part], weights[:, turn, part])
        shifted = plan.shifted(turn)
        if shifted.start < shifted.stop:
            by.shift_hue_(images[shifted], shifts[shifted])


def _change_(images: Tensor, rows: Tensor, operation: Callable[[Tensor], Tensor]) -> None:
    """Put what `operation` makes of some rows in their place; without rows nothing runs."""
    if len(rows):
        images.index_copy_(0, rows, operation(images.index_select(0, rows)))


def _augment(batch: Tensor, draws: Draws, views: Tensor, by: Operations, statistics: Statistics) -> None:
    """uint8 (B, 3, H, W) to normalised ones in `views`."""
    plan = _Plan.of(draws).to(batch.device)
    t = plan.tensors
    pixels = batch.index_select(0, t["rows"])
    _change_(pixels, t["flip"], lambda chosen: chosen.flip(-1))
    images = pixels.div(255)
    _jitter_(images, plan, by)
    _change_(images, t["grey"], lambda chosen: by.grey(chosen).expand(-1, 3, -1, -1))
    if len(t["blur"]):
        images.index_copy_(0, t["blur"], by.gaussian_blur(images, t["blur"], t["kernels"]))
    _change_(images, t["solarise"], by.solarise)
    torch.index_select(normalise_(images, statistics), 0, t["places"], out=views)


@torch.no_grad()
def photometric(batch: Tensor, draws: Draws, by: Operations = EAGER, statistics: Statistics = IMAGENET) -> Tensor:
    """uint8 (B, 3, H, W) views to float32 ones, flipped, recoloured, blurred, solarised and normalised as drawn.

    What becomes of an image does not depend on the others. Float32 also under autocast. On a device other than the
    CPU, nothing waits for it.
    """
    device = batch.device
    per_image = 4 * batch[0].numel()
    rows = max(1, _CHUNK_BYTES // per_image) if on_cpu(batch) else len(batch)
    views = torch.empty(batch.shape, dtype=torch.float32, device=device)
    with torch.autocast(device.type, enabled=False) if is_autocast_available(device.type) else nullcontext():
        for start in range(0, len(batch), rows):
            chunk = slice(start, start + rows)
            _augment(batch[chunk], draws[chunk], views[chunk], by, statistics)
    return views


def photometric_together(
    batches: Sequence[Tensor], draws: Sequence[Draws], by: Operations = EAGER, statistics: Statistics = IMAGENET
) -> list[Tensor]:
    """`photometric` of each; elsewhere than on CPUs, batches of one size at once: fewer operators and copies."""
    if on_cpu(batches[0]):
        return [photometric(*each, by, statistics) for each in zip(batches, draws, strict=True)]
    alike: dict[tuple[torch.Size, int], list[int]] = {}
    for i, batch in enumerate(batches):
        alike.setdefault((batch.shape, draws[i].reach), []).append(i)
    views = list(batches)
    for which in alike.values():
        drawn = Draws.joined([draws[i] for i in which])
        together = photometric(torch.cat([batches[i] for i in which]), drawn, by, statistics)
        for i, view in zip(which, together.chunk(len(which)), strict=True):
            views[i] = view
    return views


def random_boxes(
    generator: torch.Generator,
    batch_size: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Tensor:
    """(B, 4) int64 boxes (top, left, height, width) on the CPU, distributed as torchvision's RandomResizedCrop."""
    uniforms = torch.rand(batch_size, BOX_TRIES, BOX_UNIFORMS, generator=generator, dtype=torch.float64)
    return torch.from_numpy(boxes_from_uniforms(uniforms.numpy(), height, width, scale, ratio))


def _resize_weights(start: Tensor, length: Tensor, source: int, side: int, interpolation: Interpolation) -> Tensor:
    """(B, side, source) float32: how much of each source pixel goes into each pixel of the resized span.

    start and length (B,) give the span; pixels outside it have no weight. A tent, or Keys' cubic with a = -1/2 as in
    Pillow, as wide as a target pixel when that is the larger.
    """
    step = (length / side).view(-1, 1, 1)
    pixel = torch.arange(source, device=start.device) - start.view(-1, 1, 1)  # (B, 1, source)
    centre = (torch.arange(side, device=start.device)[:, None] + 0.5) * step  # (B, side, 1)
    x = ((pixel + 0.5 - centre) / step.clamp(min=1)).abs()
    if interpolation == "bilinear":
        weights = (1 - x).clamp_(min=0)
    else:
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = torch.where(x < 1, (1.5 * x - 2.5) * x.square() + 1, torch.where(x < 2, far, 0.0))
    weights = weights * ((pixel >= 0) & (pixel < length.view(-1, 1, 1)))
    return weights / weights.sum(-1, keepdim=True)


def resize_by_products(images: Tensor, boxes: Tensor, side: int, interpolation: Interpolation) -> Tensor:
    """crop_resize_batch as two matrix products an image: the way for accelerators, where float32 work is cheap."""
    top, left, height, width = boxes.to(images.device).unbind(1)
    rows = _resize_weights(top, height, images.shape[2], side, interpolation)
    columns = _resize_weights(left, width, images.shape[3], side, interpolation)
    with torch.autocast(images.device.type, enabled=False):
        narrowed = (images.float() @ columns[:, None].mT).clamp_(0, 255)  # also between passes, as CPU kernels do
        resized = (rows[:, None] @ narrowed).round_().clamp_(0, 255)
    return resized.to(torch.uint8)


@torch.no_grad()
def crop_resize_batch(images: Tensor, boxes: Tensor, side: int, interpolation: Interpolation) -> Tensor:
    """uint8 (B, 3, H, W) and boxes (B, 4) to uint8 (B, 3, side, side), antialiased; nothing outside a box bleeds in.

    On CPUs the kernel of `transforms.crop_resize`, image by image; elsewhere within one grey level of it.
    """
    if images.device.type != "cpu":
        return resize_by_products(images, boxes, side, interpolation)
    resized = torch.empty(len(images), 3, side, side, dtype=torch.uint8)
    for i, (top, left, height, width) in enumerate(boxes.tolist()):
        crop = images[i : i + 1, :, top : top + height, left : left + width]
        resized[i] = interpolate(crop, (side, side), mode=interpolation, antialias=True)[0]
    return resized
