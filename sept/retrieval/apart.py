"""Rows of a pool in a given order, without those that are too near to one before them.

A greedy pass: exact, and independent of blocks, devices and the number of calls. Shapes: n rows, D dim, A accepted.
"""

import numpy as np
import numpy.typing as npt
import torch

from sept.retrieval.features import Features, IntArray
from sept.retrieval.scan import full_float32
from sept.runtime.progress import progress

ROWS_AT_ONCE, ACCEPTED_AT_ONCE = 1024, 8192  # of one product: 34 MB
ROUNDING = 2.0**-23  # per dimension: bounds the error of a product of unit vectors in float32, twice over

Mask = npt.NDArray[np.bool_]


class Apart:
    """Accepts rows whose cosine distance to every row accepted before is at least `least`.

    Distances are those of the stored vectors in float64; products in float32 only decide what is not near `least`.
    Cost: n A D multiplications, and 4 A D bytes.
    """

    def __init__(self, features: Features, least: float, device: str = "cpu") -> None:
        self.features, self.least, self.device = features, least, device
        self.margin = (features.dim + 4) * ROUNDING
        self.accepted: list[IntArray] = []  # in tiles of at most ACCEPTED_AT_ONCE rows, with their vectors
        self._vectors: list[torch.Tensor] = []

    def __call__(self, rows: IntArray, most: int | None = None) -> Mask:
        """(n,) whether each of the rows, in this order, is accepted; they come after those of earlier calls.

        most: stops once so many are accepted in all calls; the result is then that of the first rows alone.
        """
        kept = np.zeros(0, dtype=bool)
        with progress("skip near-duplicates", len(rows)) as advance:
            for start in range(0, len(rows), ROWS_AT_ONCE):
                if most is not None and sum(map(len, self.accepted)) >= most:
                    break
                block = rows[start : start + ROWS_AT_ONCE]
                kept = np.concatenate([kept, self._block(block)])
                advance(len(block))
        return kept

    def _block(self, rows: IntArray) -> Mask:
        vectors = torch.from_numpy(_unit(self.features.take(rows))).to(self.device)
        keep = np.ones(len(rows), dtype=bool)
        with full_float32():
            for others, held in zip(self.accepted, self._vectors, strict=True):
                left = np.flatnonzero(keep)
                keep[left] = ~self._near(rows[left], vectors[left], others, held).any(axis=1)
            near = self._near(rows, vectors, rows, vectors)
        for place in np.flatnonzero(keep):
            if keep[place]:
                keep[place + 1 :] &= ~near[place, place + 1 :]
        self._accept(rows[keep], vectors[torch.from_numpy(keep)])
        return keep

    def _near(self, rows: IntArray, vectors: torch.Tensor, others: IntArray, held: torch.Tensor) -> Mask:
        """(n, A) whether each pair is nearer than `least`."""
        distance = 1 - (vectors @ held.T).cpu().numpy()
        near: Mask = distance < self.least
        a, b = np.nonzero(np.abs(distance - self.least) <= self.margin)
        for start in range(0, len(a), ACCEPTED_AT_ONCE):
            here = slice(start, start + ACCEPTED_AT_ONCE)
            near[a[here], b[here]] = self._distance(rows[a[here]], others[b[here]]) < self.least
        return near

    def _distance(self, rows: IntArray, others: IntArray) -> npt.NDArray[np.float64]:
        """(n,) cosine distances of pairs; each is summed by itself, so it does not depend on the others."""
        a, b = (self.features.take(each).astype(np.float64) for each in (rows, others))
        lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
        distance: npt.NDArray[np.float64] = 1 - (a * b).sum(axis=1) / lengths
        return distance

    def _accept(self, rows: IntArray, vectors: torch.Tensor) -> None:
        """Fills the last tile, then begins another."""
        if self.accepted and len(self.accepted[-1]) + len(rows) <= ACCEPTED_AT_ONCE:
            self.accepted[-1] = np.concatenate([self.accepted[-1], rows])
            self._vectors[-1] = torch.cat([self._vectors[-1], vectors])
        elif len(rows):
            self.accepted.append(rows)
            self._vectors.append(vectors)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    exact = vectors.astype(np.float64)
    return (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float32)
