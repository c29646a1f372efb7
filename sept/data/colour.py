"""Operations on batches of RGB images (B, 3, H, W), float32 in [0, 1]; torchvision's, each image with its own numbers.

B batch, H and W pixels. Nothing here draws, reads a device tensor's values or makes a tensor from Python numbers on a
device (a copy that is waited for): shapes and arguments alone say which operators run, so all can be compiled. What
counts on devices is memory moved: names with an underscore at their end overwrite their images. CPUs get the same bits
as ever; where another device has a fused operator, its results differ by a rounding.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

_SOLARISE_THRESHOLD = 128 / 255  # Pillow ImageOps.solarize
_GREY = (0.2989, 0.587, 0.114)  # torchvision rgb_to_grayscale
_LEAST_CHROMA = 1e-7  # below it hue means nothing


def on_cpu(images: Tensor) -> bool:
    """Whether the way for CPUs is taken, whose bits are those of torchvision-like steps one after the other."""
    return images.device.type == "cpu"


def grey(images: Tensor) -> Tensor:
    """Luma (B, 1, H, W) of (B, 3, H, W)."""
    red, green, blue = images.unbind(1)
    return red.mul(_GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2]).unsqueeze(1)


def blend_(images: Tensor, weights: Tensor) -> Tensor:
    """own * image + of_mean * mean luma + of_grey * luma, clamped to [0, 1]; weights (3, B) own, of_mean and of_grey.

    Brightness, contrast and saturation are (f, 0, 0), (f, 1 - f, 0) and (f, 0, 1 - f); (1, 0, 0) changes nothing.
    """
    own, of_mean, of_grey = weights[..., None, None, None].unbind(0)
    luma = grey(images)
    mean = luma.mean(dim=(2, 3), keepdim=True)
    base = luma.mul_(of_grey).add_(mean * of_mean)
    if on_cpu(images):
        return images.mul_(own).add_(base).clamp_(0, 1)  # addcmul would round once and give other bits
    return torch.addcmul(base, images, own, out=images).clamp_(0, 1)


def shift_hue_(images: Tensor, shifts: Tensor) -> Tensor:
    """Hue turned by (B,) shifts in [-1/2, 1/2], in turns; saturation and value kept."""
    red, green, blue = images.unbind(1)
    value = images.amax(dim=1)
    chroma = value - images.amin(dim=1)
    divisor = chroma.clamp(min=_LEAST_CHROMA)
    # lerp with weights of exactly 0 and 1 selects exactly, 18 times as fast as torch.where on CPUs.
    of_blue = (red - green).div_(divisor).add_(4)
    of_green = (blue - red).div_(divisor).add_(2).lerp_(of_blue, (value - green).sign_())
    sextant = (green - blue).div_(divisor).lerp_(of_green, (value - red).sign_())  # in [-1, 5]
    # Each channel falls from `value` by `chroma` over two of the six sextants, with a ramp of one on both sides.
    channels = torch.arange(11.0, 6.0, -2.0, device=images.device).view(3, 1, 1)  # 11, 9, 7: no copy to the device
    turned = sextant.unsqueeze(1) + (channels + 6 * shifts.view(-1, 1, 1, 1))
    value, chroma = value.unsqueeze(1), chroma.unsqueeze(1)
    if on_cpu(images):
        fall = torch.rsub(turned.div_(6).frac_().mul_(6).sub_(2).abs_(), 2).clamp_(0, 1)
        return torch.sub(value, fall.mul_(chroma), out=images)
    rise = turned.remainder_(6).sub_(2).abs_().clamp_(1, 2)  # 2 - fall
    return torch.addcmul(value.sub_(chroma, alpha=2), rise, chroma, out=images)


def blur_kernels(sigmas: Tensor, reach: int) -> Tensor:
    """(B, reach + 1) weights of the middle and of the pixels 1, 2, .. reach away; sigmas (B,) positive, in pixels."""
    kernel = torch.exp(-0.5 * (torch.arange(reach + 1, device=sigmas.device) / sigmas[:, None]).square())
    return kernel / (2 * kernel.sum(1, keepdim=True) - kernel[:, :1])


def gaussian_blur(images: Tensor, rows: Tensor, kernels: Tensor) -> Tensor:
    """The images of (R,) rows, each blurred with its own half kernel of (R, reach + 1); edges repeated as in Pillow."""
    if on_cpu(images):
        return _blur_by_taps(images.index_select(0, rows), kernels)
    reach = kernels.shape[1] - 1
    whole = torch.cat([kernels.flip(1)[:, :-1], kernels], dim=1).repeat_interleave(3, dim=0)[:, None, None]
    padded = _gathered_and_padded(images, rows, reach).view(
        1, -1, images.shape[2] + 2 * reach, images.shape[3] + 2 * reach
    )
    across = conv2d(padded, whole, groups=len(whole))
    return conv2d(across, whole.mT, groups=len(whole)).view(len(rows), *images.shape[1:])


def _blur_by_taps(images: Tensor, kernels: Tensor) -> Tensor:
    """Two passes of 2 * reach + 1 taps: on CPUs faster than convolutions with a group per image."""
    reach = kernels.shape[1] - 1
    weights = kernels.T[..., None, None, None].unbind(0)  # reach + 1 times (B, 1, 1, 1)
    padded = pad(images, (reach, reach, reach, reach), mode="replicate")
    for dim in (2, 3):
        length = images.shape[dim]
        blurred = padded.narrow(dim, reach, length) * weights[0]
        for tap in range(1, reach + 1):
            blurred.addcmul_(padded.narrow(dim, reach - tap, length), weights[tap])
            blurred.addcmul_(padded.narrow(dim, reach + tap, length), weights[tap])
        padded = blurred
    return padded


def _gathered_and_padded(images: Tensor, rows: Tensor, reach: int) -> Tensor:
    """The images of these rows, their edges repeated `reach` times on all sides: one read and one write of memory."""
    down, right = (
        torch.arange(-reach, length + reach, device=images.device).clamp_(0, length - 1) for length in images.shape[2:]
    )
    channels = torch.arange(images.shape[1], device=images.device)
    return images[rows[:, None, None, None], channels[:, None, None], down[:, None], right]


def solarise(images: Tensor) -> Tensor:
    """Values from 128/255 on inverted."""
    light = torch.ge(images, _SOLARISE_THRESHOLD, out=torch.empty_like(images))  # as 0.0 and 1.0
    return torch.lerp(images, 1 - images, light)


class Operations(NamedTuple):
    """How each operation is done."""

    blend_: Callable[[Tensor, Tensor], Tensor]
    shift_hue_: Callable[[Tensor, Tensor], Tensor]
    grey: Callable[[Tensor], Tensor]
    gaussian_blur: Callable[[Tensor, Tensor, Tensor], Tensor]
    solarise: Callable[[Tensor], Tensor]


EAGER = Operations(blend_, shift_hue_, grey, gaussian_blur, solarise)


@cache
def compiled() -> Operations:
    """Each fused by torch.compile, for any number of images: a pass over memory or two instead of up to thirty.

    The first calls take a minute. Results differ from those of `EAGER` by roundings, also on CPUs.
    """
    return Operations(*(torch.compile(operation, dynamic=True) for operation in EAGER))
