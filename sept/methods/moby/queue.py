"""MoBy's key queue: the last M momentum keys, the negatives of the contrastive loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
