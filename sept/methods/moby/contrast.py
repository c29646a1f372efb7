"""MoBy's contrastive loss, and the queue of the last M momentum keys, which are its negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sept.training.optim import at_least_single


class KeyQueue(nn.Module):
    """Two ring buffers of M keys, one per view, with a common write position; buffers, so checkpoints contain them.

    keys: (2, D, M) float32, N(0, 1) then L2-normalised per column at the start (MoBy released code).
    """

    keys: Tensor
    position: Tensor

    def __init__(self, dim: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(2, dim, size, generator=generator), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys1: Tensor, keys2: Tensor) -> None:
        """Overwrites the oldest keys with those of both views (B, D), B at most M."""
        size, batch = self.keys.shape[2], keys1.shape[0]
        assert batch <= size, f"a queue of {size} keys does not take a batch of {batch}"
        slots = (self.position + torch.arange(batch, device=self.keys.device)) % size
        self.keys[:, :, slots] = torch.stack([keys1.T, keys2.T]).to(self.keys.dtype)
        self.position.copy_((self.position + batch) % size)


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of classifying each query's key against the queue: a scalar.

    query (B, D) predictions of one view, key (B, D) target projections of the other, both L2-normalised;
    queue (D, M) earlier keys of the key's view. No gradient reaches key or queue. At random features it
    is about ln(M + 1). MoBy adds the two directions, without a factor (released code).
    """
    positive = (query * key.detach()).sum(dim=1, keepdim=True)  # (B, 1)
    logits = torch.cat([positive, query @ queue.detach()], dim=1) / temperature  # (B, 1 + M)
    return F.cross_entropy(at_least_single(logits), torch.zeros(len(query), dtype=torch.long, device=query.device))
