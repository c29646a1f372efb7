"""Ranked lists, and the same lists without certain rows, as if the pool had never held them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sept.retrieval.features import IntArray


@dataclass(frozen=True)
class Ranked:
    """Ranked lists: rows (Q, depth) int64 and scores (Q, depth) float64, most similar first, ties by the lower row."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]


class FilteredLists:
    """Ranked lists without `removed` rows, which have a vector: later rows move up. Requests the deepest lists once and
    keeps them.

    search(depth) returns the unfiltered lists to that depth, complete ones for depth `embedded`, all rows with a
    vector. A call may return shorter lists than requested, as long as deeper ones exist and were not needed yet.
    """

    def __init__(self, search: Callable[[int], Ranked], embedded: int) -> None:
        self._search, self._embedded = search, embedded
        self._lists: Ranked | None = None
        self.last: Ranked | None = None  # result of the last call
        self.removed: IntArray = np.empty(0, dtype=np.int64)

    @property
    def available(self) -> int:
        """The maximum length of a list."""
        return self._embedded - len(self.removed)

    def __call__(self, depth: int) -> Ranked:
        if self._lists is None or self._lists.rows.shape[1] < depth:
            self._lists = self._search(min(depth + len(self.removed), self._embedded))
        shorter = without(self._lists, self.removed)
        if shorter.rows.shape[1] < depth and depth >= self.available:  # asked for complete lists
            self._lists = self._search(self._embedded)
            shorter = without(self._lists, self.removed)
        self.last = Ranked(shorter.rows[:, :depth], shorter.scores[:, :depth])
        return self.last


def without(ranked: Ranked, removed: IntArray) -> Ranked:
    """The lists without the removed rows, all cut to the length of the shortest."""
    if not len(removed):
        return ranked
    gone = np.isin(ranked.rows, removed)
    width = int((~gone).sum(axis=1).min())
    order = np.argsort(gone, axis=1, kind="stable")[:, :width]  # the kept first, in their order
    return Ranked(np.take_along_axis(ranked.rows, order, 1), np.take_along_axis(ranked.scores, order, 1))
