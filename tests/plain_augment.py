"""The colour operations of `sept.data.augment` one after the other on whole batches, as they first were.

What views are on a CPU is fixed by these, to the last bit: results on disk were trained on them.
"""

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch.nn.functional import pad

HUE = 3


def normalised(images):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return images.sub(mean).div_(std)


def grey(images):
    red, green, blue = images.unbind(1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)


def blended(images, factors, operations):
    factors = torch.where(operations == HUE, 1.0, factors)
    if bool((factors == 1).all()):
        return images
    rest = 1 - factors
    own, of_mean, of_grey = torch.stack([factors, rest * (operations == 1), rest * (operations == 2)])[
        ..., None, None, None
    ]
    luma = grey(images)
    return images.mul(own).add_(luma * of_grey + luma.mean(dim=(2, 3), keepdim=True) * of_mean).clamp_(0, 1)


def with_hue(images, shifts):
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    divisor = chroma.clamp(min=1e-7)
    of_blue = (red - green).div_(divisor).add_(4)
    of_green = (blue - red).div_(divisor).add_(2).lerp_(of_blue, (value - green).sign_())
    sextant = (green - blue).div_(divisor).lerp_(of_green, (value - red).sign_())
    offsets = torch.tensor([11.0, 9.0, 7.0]).view(3, 1, 1) + 6 * shifts.view(-1, 1, 1, 1)
    phase = (sextant.unsqueeze(1) + offsets).div_(6).frac_().mul_(6)
    fall = phase.sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
    return fall.mul_(chroma.unsqueeze(1)).neg_().add_(value.unsqueeze(1))


def blurred(images, sigmas, reach):
    kernel = torch.exp(-0.5 * (torch.arange(reach + 1) / sigmas[:, None]).square())
    kernel = kernel / (2 * kernel.sum(1, keepdim=True) - kernel[:, :1])
    weights = kernel.T[..., None, None, None].unbind(0)
    padded = pad(images, (reach, reach, reach, reach), mode="replicate")
    for dim in (2, 3):
        length = images.shape[dim]
        result = padded.narrow(dim, reach, length) * weights[0]
        for tap in range(1, reach + 1):
            result.addcmul_(padded.narrow(dim, reach - tap, length), weights[tap])
            result.addcmul_(padded.narrow(dim, reach + tap, length), weights[tap])
        padded = result
    return padded


def solarised(images):
    light = torch.ge(images, 128 / 255, out=torch.empty_like(images))
    return torch.lerp(images, 1 - images, light)


def views(batch, draws):
    """Of a batch that is one chunk."""
    images = batch.float().div_(255)
    images[draws.flip] = images[draws.flip].flip(-1)
    for operations in draws.order.unbind(1):
        factors = draws.factors.gather(1, operations[:, None]).squeeze(1)
        images = blended(images, factors, operations)
        hue = (operations == HUE) & (factors != 0)
        images[hue] = with_hue(images[hue], factors[hue])
    images[draws.grayscale] = grey(images[draws.grayscale]).expand(-1, 3, -1, -1)
    images[draws.sigma > 0] = blurred(images[draws.sigma > 0], draws.sigma[draws.sigma > 0], draws.reach)
    images[draws.solarise] = solarised(images[draws.solarise])
    return normalised(images)
