"""A selection without leaks; only rows about to be chosen are checked."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sept.retrieval.features import IntArray


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
