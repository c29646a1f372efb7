"""A selection without leaks, checking only rows about to be chosen."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sept.retrieval.features import IntArray


def find_leaks(
    choose: Callable[[IntArray], IntArray], is_leak: Callable[[IntArray], npt.NDArray[np.bool_]]
) -> tuple[IntArray, IntArray]:
    """The rows that `choose` returns for a pool without leaks, and the leaks found, ascending.

    choose(removed) returns the K rows chosen from a pool without the removed ones; is_leak(rows) (n,) -> (n,) is called
    once for every row about to be chosen. If the choice does not depend on unchosen rows, as in Algorithm 1 and every
    ranking, the result is that of a fully cleaned pool. Raises ConfigError, as `choose` does, when the remaining rows
    do not meet the budget.
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
