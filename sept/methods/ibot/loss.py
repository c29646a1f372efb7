"""iBOT's two losses: self-distillation of [CLS] across crops, and of masked patches within a crop.

Shapes: V crops, B batch, L patch tokens, C prototypes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sept.training.optim import at_least_single


def sharpen(teacher: Tensor, center: Tensor, temperature: float) -> Tensor:
    """softmax((teacher - center) / temperature): the target distribution, without gradient."""
    return F.softmax((at_least_single(teacher.detach()) - center) / temperature, dim=-1)


def cls_loss(student: list[Tensor], teacher: list[Tensor], student_temp: float) -> Tensor:
    """Cross-entropy of every student crop v with every teacher global crop q, v != q: a scalar.

    student: (B, C) logits of all crops, global ones first; teacher: (B, C) probabilities of the global ones.
    Mean over the batch, then over the pairs (22 with 2 global and 10 local crops).
    """
    logs = [F.log_softmax(at_least_single(crop) / student_temp, dim=-1) for crop in student]
    terms = [
        -(target * log).sum(dim=-1).mean() for q, target in enumerate(teacher) for v, log in enumerate(logs) if v != q
    ]
    return torch.stack(terms).mean()


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
