"""iBOT's second loss: self-distillation of masked patches within a crop. The first is DINO's.

Shapes: B batch, L patch tokens, C prototypes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sept.training.optim import at_least_single


def patch_loss(student: list[Tensor], teacher: list[Tensor], masks: list[Tensor], student_temp: float) -> Tensor:
    """Cross-entropy of masked patches with the teacher's view of the same crop unmasked: a scalar.

    student (B, L, C) logits and teacher (B, L, C) probabilities of the global crops, masks (B, L) bool. Mean over
    the masked patches of an image (an unmasked image gives 0), then over images, then over crops.
    """
    terms = []
    for crop, target, mask in zip(student, teacher, masks, strict=True):
        entropy = -(target * F.log_softmax(at_least_single(crop) / student_temp, dim=-1)).sum(dim=-1)  # (B, L)
        weight = mask.to(entropy.dtype)
        terms.append(((entropy * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)).mean())
    return torch.stack(terms).mean()
