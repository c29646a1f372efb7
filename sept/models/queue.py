"""MoBy's key queue: the last M momentum keys, the negatives of the contrastive loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """Two rings of M keys, one a view, written at one shared position; buffers, so checkpoints hold them.

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
        """Write the keys (B, D) of both views over the oldest; B must divide M."""
        size, batch, start = self.keys.shape[2], keys1.shape[0], int(self.position)
        assert size % batch == 0, f"a queue of {size} keys does not take whole batches of {batch}"
        self.keys[0, :, start : start + batch] = keys1.T.to(self.keys.dtype)
        self.keys[1, :, start : start + batch] = keys2.T.to(self.keys.dtype)
        self.position.fill_((start + batch) % size)
