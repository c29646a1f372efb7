"""What a retriever takes from a network as the vector of an image, before it is scaled to unit length.

Shapes: B images, D width. In float32 from the tokens on, whatever autocast gave them.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sept.backbones.networks import tokens


def cls_mean(network: nn.Module, images: Tensor) -> Tensor:
    """concat([CLS], mean of patch tokens), both after the final LayerNorm: (B, 2D).

    SEPT, Retrieval Pipeline: "the combination of [CLS] token and patch tokens", 768 = 2 x 384 for ViT-S.
    """
    prefix, patches = tokens(network, images)
    return torch.cat([prefix[:, 0].float(), patches.float().mean(dim=1)], dim=1)


def cls(network: nn.Module, images: Tensor) -> Tensor:
    """[CLS] after the final LayerNorm: (B, D)."""
    prefix, _ = tokens(network, images)
    return prefix[:, 0].float()


def mean(network: nn.Module, images: Tensor) -> Tensor:
    """Mean of the patch tokens after the final LayerNorm: (B, D)."""
    _, patches = tokens(network, images)
    return patches.float().mean(dim=1)


def pooled(network: Any, images: Tensor) -> Tensor:
    """What the network itself hands to a classifier: (B, D)."""
    return network.forward_head(network.forward_features(images), pre_logits=True).float()  # type: ignore[no-any-return]


def joint(network: Any, images: Tensor) -> Tensor:
    """Where a network of images and text has both in one space: (B, D)."""
    return network.encode_image(images).float()  # type: ignore[no-any-return]
