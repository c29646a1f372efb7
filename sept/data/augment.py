"""Batched views on the device: random resized crops, then flip, colour, blur, solarise and normalise.

What is done is drawn on the CPU as a pure function of a generator; doing it draws nothing. Images are RGB, float
operations expect [0, 1]. B batch, H and W pixels. Operations as torchvision's, steps in the order of MoBy and iBOT.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from sept.data.transforms import BOX_TRIES, BOX_UNIFORMS, Interpolation, boxes_from_uniforms, normalise

BLUR_REFERENCE_SIDE = 224  # the published blur radii are pixels of 224-pixel views
_SOLARISE_THRESHOLD = 128 / 255  # Pillow ImageOps.solarize
_GREY = (0.2989, 0.587, 0.114)  # torchvision rgb_to_grayscale
_BLUR_SIGMAS = 3  # the kernel is cut there; what is lost is under 0.3 %
_CHUNK_BYTES = 2**22  # of float32 pixels at a time on CPUs: the fastest of 2**18 to 2**22
_LEAST_CHROMA = 1e-7  # below it hue means nothing
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


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


def scaled_blur_radius(low: float, high: float, side: int) -> tuple[float, float]:
    """Radii given for 224-pixel views, in pixels of a view of this side."""
    return low * side / BLUR_REFERENCE_SIDE, high * side / BLUR_REFERENCE_SIDE


def draw_parameters(generator: torch.Generator, batch_size: int, policy: Policy) -> Draws:
    """Draws for a batch. Those for a smaller batch are the first rows of those for a larger one."""
    uniforms = torch.rand(batch_size, 14, generator=generator, dtype=torch.float64)
    flip, jitter, grayscale, blur, radius, solarise = uniforms[:, :6].unbind(1)
    spans = torch.tensor([policy.brightness, policy.contrast, policy.saturation, policy.hue], dtype=torch.float64)
    identity = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
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


def grey(images: Tensor) -> Tensor:
    """Luma (B, 1, H, W) of (B, 3, H, W)."""
    red, green, blue = images.unbind(1)
    return red.mul(_GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2]).unsqueeze(1)


def blend(images: Tensor, factors: Tensor, operations: Tensor) -> Tensor:
    """Brightness, contrast or saturation, each image its own: factor * image + (1 - factor) * base, clamped.

    factors (B,) float and operations (B,) int64 on the CPU; the base is black, the mean grey or the grey image. Images
    whose operation is hue stay as they are.
    """
    factors = torch.where(operations == _HUE, 1.0, factors)
    if bool((factors == 1).all()):
        return images
    rest = 1 - factors
    weights = torch.stack([factors, rest * (operations == _CONTRAST), rest * (operations == _SATURATION)])
    own, of_mean, of_grey = weights[..., None, None, None].to(images.device)
    luma = grey(images)
    base = luma * of_grey + luma.mean(dim=(2, 3), keepdim=True) * of_mean
    return images.mul(own).add_(base).clamp_(0, 1)


def shift_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Hue turned by (B,) shifts in [-1/2, 1/2], in turns; saturation and value kept."""
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    divisor = chroma.clamp(min=_LEAST_CHROMA)
    # lerp with weights of exactly 0 and 1 selects exactly, 18 times as fast as torch.where on CPUs.
    of_blue = (red - green).div_(divisor).add_(4)
    of_green = (blue - red).div_(divisor).add_(2).lerp_(of_blue, (value - green).sign_())
    sextant = (green - blue).div_(divisor).lerp_(of_green, (value - red).sign_())  # in [-1, 5]
    # Each channel falls from `value` by `chroma` over two of the six sextants, with a ramp of one on both sides.
    offsets = torch.tensor([11.0, 9.0, 7.0], device=images.device).view(3, 1, 1) + 6 * shifts.view(-1, 1, 1, 1)
    phase = (sextant.unsqueeze(1) + offsets).div_(6).frac_().mul_(6)
    fall = phase.sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
    return fall.mul_(chroma.unsqueeze(1)).neg_().add_(value.unsqueeze(1))  # in place: fresh memory costs more here


def gaussian_blur(images: Tensor, sigmas: Tensor, reach: int) -> Tensor:
    """Each image blurred with its own positive sigma (B,), in pixels; edges repeated as in Pillow.

    Two passes of 2 * reach + 1 taps: on CPUs faster than convolutions with a group per image.
    """
    taps = torch.arange(reach + 1, device=images.device)
    kernel = torch.exp(-0.5 * (taps / sigmas[:, None]).square())
    kernel = kernel / (2 * kernel.sum(1, keepdim=True) - kernel[:, :1])
    weights = kernel.T[..., None, None, None].unbind(0)  # reach + 1 times (B, 1, 1, 1)
    padded = pad(images, (reach, reach, reach, reach), mode="replicate")
    for dim in (2, 3):
        length = images.shape[dim]
        blurred = padded.narrow(dim, reach, length) * weights[0]
        for tap in range(1, reach + 1):
            blurred.addcmul_(padded.narrow(dim, reach - tap, length), weights[tap])
            blurred.addcmul_(padded.narrow(dim, reach + tap, length), weights[tap])
        padded = blurred
    return padded


def solarise(images: Tensor) -> Tensor:
    """Values from 128/255 on inverted."""
    light = torch.ge(images, _SOLARISE_THRESHOLD, out=torch.empty_like(images))  # as 0.0 and 1.0
    return torch.lerp(images, 1 - images, light)


def _chosen(mask: Tensor, device: torch.device) -> Tensor | None:
    """Indices of the images to change, or None; found on the CPU, so that the device need not be waited for."""
    return mask.nonzero().squeeze(1).to(device) if bool(mask.any()) else None


def _jitter(images: Tensor, draws: Draws) -> Tensor:
    """The four colour operations, in each image's own order."""
    for operations in draws.order.unbind(1):
        factors = draws.factors.gather(1, operations[:, None]).squeeze(1)
        images = blend(images, factors, operations)
        hue = (operations == _HUE) & (factors != 0)
        if (rows := _chosen(hue, images.device)) is not None:
            images[rows] = shift_hue(images[rows], factors[hue].to(images.device))
    return images


def _augment(images: Tensor, draws: Draws) -> Tensor:
    """Float images (B, 3, H, W), which it may overwrite, to normalised ones."""
    device = images.device
    if (rows := _chosen(draws.flip, device)) is not None:
        images[rows] = images[rows].flip(-1)
    images = _jitter(images, draws)
    if (rows := _chosen(draws.grayscale, device)) is not None:
        images[rows] = grey(images[rows]).expand(-1, 3, -1, -1)
    if (rows := _chosen(draws.sigma > 0, device)) is not None:
        images[rows] = gaussian_blur(images[rows], draws.sigma[draws.sigma > 0].to(device), draws.reach)
    if (rows := _chosen(draws.solarise, device)) is not None:
        images[rows] = solarise(images[rows])
    return normalise(images)


@torch.no_grad()
def photometric(batch: Tensor, draws: Draws) -> Tensor:
    """uint8 (B, 3, H, W) views to float32 ones, flipped, recoloured, blurred, solarised and normalised as drawn.

    What becomes of an image does not depend on the others. Float32 also under autocast.
    """
    per_image = 4 * batch[0].numel()
    rows = max(1, _CHUNK_BYTES // per_image) if batch.device.type == "cpu" else len(batch)
    views = torch.empty(batch.shape, dtype=torch.float32, device=batch.device)
    for start in range(0, len(batch), rows):
        chunk = slice(start, start + rows)
        views[chunk] = _augment(batch[chunk].float().div_(255), draws[chunk])
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
