"""A selection without certain rows, as if the pool had never held them; only rows about to be chosen are checked.

Reads ranked lists, gives shorter ones; the rest of the retrieval need not know.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sept.retrieval.features import IntArray
from sept.retrieval.index import Ranked


class FilteredLists:
    """Ranked lists without `removed` rows: what comes after moves up. Asks for the deepest lists once and keeps them.

    search(depth) gives the whole lists to that depth, complete ones where depth is `embedded`, all rows with a vector.
    A call gives lists that may be narrower than asked for, as long as deeper ones exist and more were not needed yet.
    """

    def __init__(self, search: Callable[[int], Ranked], embedded: int) -> None:
        self._search, self._embedded = search, embedded
        self._lists: Ranked | None = None
        self.removed: IntArray = np.empty(0, dtype=np.int64)

    @property
    def available(self) -> int:
        """How many rows a list can reach."""
        return self._embedded - len(self.removed)

    def __call__(self, depth: int) -> Ranked:
        if self._lists is None or self._lists.rows.shape[1] < depth:
            self._lists = self._search(min(depth + len(self.removed), self._embedded))
        shorter = without(self._lists, self.removed)
        if shorter.rows.shape[1] < depth and depth >= self.available:  # asked for complete lists
            self._lists = self._search(self._embedded)
            shorter = without(self._lists, self.removed)
        return Ranked(shorter.rows[:, :depth], shorter.scores[:, :depth])


def without(ranked: Ranked, removed: IntArray) -> Ranked:
    """The lists without the removed rows, all cut to the length of the shortest."""
    if not len(removed):
        return ranked
    gone = np.isin(ranked.rows, removed)
    width = int((~gone).sum(axis=1).min())
    order = np.argsort(gone, axis=1, kind="stable")[:, :width]  # the kept first, in their order
    return Ranked(np.take_along_axis(ranked.rows, order, 1), np.take_along_axis(ranked.scores, order, 1))


def find_leaks(
    choose: Callable[[IntArray], IntArray], is_leak: Callable[[IntArray], npt.NDArray[np.bool_]]
) -> tuple[IntArray, IntArray]:
    """The rows that `choose` gives when no leak is in the pool, and the leaks it met, ascending.

    choose(removed) gives the K rows chosen from a pool without the removed ones; is_leak(rows) (n,) -> (n,) is asked
    once for every row about to be chosen. For a choice that depends on no row left unchosen, as Algorithm 1 and every
    ranking, the result is that of a pool cleaned as a whole. Raises ConfigError, as `choose` does, when the rows that
    are left do not meet the budget.
    """
    removed, clean = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    while True:
        rows = choose(removed)
        new = rows[~np.isin(rows, clean)]
        leaks = is_leak(new) if len(new) else np.zeros(0, dtype=bool)
        if not leaks.any():
            return rows, removed
        clean = np.concatenate([clean, new[~leaks]])
        removed = np.union1d(removed, new[leaks])
