"""The input of a selector, with access to the pool's vectors.

Shapes: N pool rows, Q queries, D dim.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sept.data.rng import fold
from sept.retrieval.features import Features, IntArray
from sept.retrieval.lists import FilteredLists
from sept.retrieval.select import random_subset

BLOCK_ROWS = 8192


@dataclass(frozen=True)
class SelectionContext:
    """queries: (Q, D) float32 unit vectors of the task. lists: their ranked lists, without the rows of `lists.removed`,
    which must not be chosen. first_depth: estimate from a sample of how deep the lists must be read, if there is
    one."""

    features: Features
    queries: npt.NDArray[np.float32]
    budget: int
    seed: int
    lists: FilteredLists
    first_depth: int | None = None
    device: str = "cpu"

    @property
    def masked(self) -> IntArray:
        """The rows that cannot be chosen, ascending."""
        return np.union1d(self.features.skipped, self.lists.removed)

    def sample(self, most: int, purpose: str) -> IntArray:
        """At most `most` random rows that can be chosen, ascending; each purpose draws its own."""
        masked = self.masked
        wanted = min(most + len(masked), self.features.rows)
        drawn = random_subset(self.features.rows, wanted, fold(self.seed, purpose))
        return np.sort(drawn[~np.isin(drawn, masked)][:most])

    def blocks(self) -> Iterator[tuple[IntArray, np.ndarray]]:
        """For each block of the pool the rows (n,) that can be chosen, and their vectors (n, D)."""
        masked = self.masked
        for first, vectors in self.features.blocks(BLOCK_ROWS):
            keep = np.ones(len(vectors), dtype=bool)
            begin, end = np.searchsorted(masked, (first, first + len(vectors)))
            keep[masked[begin:end] - first] = False
            yield first + np.flatnonzero(keep), vectors[keep]
