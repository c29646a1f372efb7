"""The input of a selector, with access to the pool's vectors.

Shapes: N pool rows, Q queries, D dim.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from sept.data.rng import fold
from sept.retrieval.features import Features, IntArray
from sept.retrieval.select import FilteredLists, Ranked, random_subset
from sept.selectors import Selector

BLOCK_ROWS = 8192


@dataclass(frozen=True)
class SelectionContext:
    """queries: (Q, D) float32 unit vectors of the task. budget: None for a selector that stops by itself. lists: the
    queries' ranked lists, without the rows of `lists.removed`, which must not be chosen. first_depth: estimate from a
    sample of how deep the lists must be read, if there is one. search: ranked lists of any unit vectors (n, D) to any
    depth."""

    features: Features
    queries: npt.NDArray[np.float32]
    budget: int | None
    seed: int
    lists: FilteredLists
    first_depth: int | None = None
    device: str = "cpu"
    settings: Selector = field(default_factory=Selector)
    search: Callable[[npt.NDArray[np.float32], int], Ranked] | None = None
    others: dict[bytes, FilteredLists] = field(default_factory=dict)  # of `lists_of`

    @property
    def wanted(self) -> int:
        """The budget of a selector that does not stop by itself."""
        assert self.budget is not None, f"{self.settings.name} does not stop by itself"
        return self.budget

    @property
    def read(self) -> FilteredLists:
        """The lists that were asked for: those of other vectors, if there are any."""
        return next(iter(self.others.values()), self.lists)

    def lists_of(self, vectors: npt.NDArray[np.float32]) -> FilteredLists:
        """The ranked lists of other unit vectors (n, D) than the queries, without the same rows; searched once."""
        assert self.search is not None
        key = vectors.tobytes()
        if key not in self.others:
            self.others[key] = FilteredLists(partial(self.search, vectors), self.features.embedded)
        self.others[key].removed = self.lists.removed
        return self.others[key]

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
