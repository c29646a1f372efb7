"""What detectors and segmenters take from a backbone: maps of an image, whatever the network."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Trunk(nn.Module):
    """Of images (B, 3, H, W) of any size some maps (B, channels[i], h_i, w_i), the finest first.

    patch: pixels to whose multiples an image is filled up, below and right: all maps are of the image filled up.
    keeps_statistics: batch norms go by the statistics that their weights came with (mmdet's norm_eval).
    """

    channels: list[int]
    patch: list[int]
    keeps_statistics = False

    def filled(self, images: Tensor) -> Tensor:
        bottom, right = (-size % patch for size, patch in zip(images.shape[-2:], self.patch, strict=True))
        return F.pad(images, (0, right, 0, bottom))

    def size(self, images: Tensor) -> list[int]:
        """Pixels of the images filled up: height and width."""
        return [-(-size // patch) * patch for size, patch in zip(images.shape[-2:], self.patch, strict=True)]

    def train(self, mode: bool = True) -> "Trunk":
        super().train(mode)
        for module in self.modules() if self.keeps_statistics else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self
