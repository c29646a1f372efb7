"""MoBy's contrastive loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sept.training.optim import at_least_single


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of classifying each query's key against the queue: a scalar.

    query (B, D) predictions of one view, key (B, D) target projections of the other, both L2-normalised;
    queue (D, M) earlier keys of the key's view. No gradient reaches key or queue. At random features it
    is about ln(M + 1). MoBy adds the two directions, without a factor (released code).
    """
    positive = (query * key.detach()).sum(dim=1, keepdim=True)  # (B, 1)
    logits = torch.cat([positive, query @ queue.detach()], dim=1) / temperature  # (B, 1 + M)
    return F.cross_entropy(at_least_single(logits), torch.zeros(len(query), dtype=torch.long, device=query.device))
