"""The loss of semantic segmentation."""

import torch.nn.functional as F
from torch import Tensor

from sept.training.optim import at_least_single


def pixel_loss(logits: Tensor, masks: Tensor, ignore: int) -> Tensor:
    """Mean cross-entropy of the pixels whose mask is not `ignore`: a scalar, 0 where there are none.

    logits (B, C, H, W); masks (B, H, W), classes from 0.
    """
    total = F.cross_entropy(at_least_single(logits), masks.long(), ignore_index=ignore, reduction="sum")
    return total / (masks != ignore).sum().clamp(min=1)
