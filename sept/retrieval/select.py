"""Algorithm 1: from ranked lists to a selection.

From ranked lists (or nothing, for a random subset), returns the pool rows to pre-train on in the order chosen. Lists
may lack certain rows, as if the pool had never held them. Shapes: Q queries, K budget.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sept.data.rng import fold
from sept.errors import ConfigError
from sept.retrieval.features import IntArray
from sept.retrieval.selections import Selection

DEPTH_MARGIN = 1.5  # first depth, in units of budget / queries: allows for overlap between the lists
FIRST_ROUNDS = 512  # read before it is known when to stop
SAMPLE_MARGIN = 1.15  # a sample of 1/16 predicts the depth within about 6 %, small ones within more


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


def round_robin(ranked: IntArray, budget: int) -> IntArray:
    """Union of ranked lists, best ranks first, one query at a time (SEPT Alg. 1, lines 6-17).

    ranked: (Q, depth) pool rows, most similar first. Returns the positions of the chosen rows, rank * Q + query, in the
    order chosen, so that the result for a smaller budget is a prefix of this one. At most `budget`, fewer if the lists
    hold fewer distinct rows. Reads at most half as many ranks again as needed.
    """
    depth, ranks = ranked.shape[1], int(np.ceil(DEPTH_MARGIN * budget / len(ranked)))
    while len(places := _first_places(ranked[:, :ranks])) < budget and ranks < depth:
        ranks *= 2
    return places[:budget]


def _first_places(ranked: IntArray) -> IntArray:
    """The positions at which each row first occurs in the lists, ascending. One sort."""
    packed = ranked.T.astype(np.int64, order="C").ravel()  # rank by rank, a copy
    bits = packed.size.bit_length()
    assert int(packed.max(initial=0)).bit_length() + bits < 64, "row and place do not fit into 64 bits"
    packed <<= bits
    packed |= np.arange(packed.size)
    packed.sort()  # by row, then place
    first = np.ones(packed.size, dtype=bool)  # place of its row
    np.greater_equal(packed[1:] ^ packed[:-1], 1 << bits, out=first[1:])
    chosen = np.zeros(packed.size, dtype=bool)
    chosen[packed[first] & ((1 << bits) - 1)] = True
    return np.flatnonzero(chosen)


def select(
    search: Callable[[int], Ranked], queries: int, budget: int, available: int, first_depth: int | None = None
) -> Selection:
    """The `budget` pool rows that Algorithm 1 picks from complete ranked lists, of which only the top is computed.

    search(depth) returns the ranked lists of all queries to that depth; it is called with increasing depth until they
    suffice, and the result does not depend on the first one (`first_depth`, for instance from `predicted_depth`).
    available: number of readable pool rows. Raises ConfigError when that is less than the budget.
    """
    if not 0 < budget <= available:
        raise ConfigError(f"budget.images={budget:,} but the pool holds only {available:,} readable images")
    depth = min(available, first_depth or int(np.ceil(DEPTH_MARGIN * budget / queries)))
    while True:
        ranked = search(depth)
        places = round_robin(ranked.rows, budget)
        if len(places) == budget:
            break
        assert depth < available, "complete lists lack some readable rows"
        depth = min(available, 2 * depth)
    return _selection(ranked, places)


def select_while(search: Callable[[int], Ranked], queries: int, least: float, available: int) -> Selection:
    """All pool rows that Algorithm 1 picks before the first round whose mean similarity is below `least` times that of
    the first round; a round is one rank of every list.

    The similarity of a round is the mean of all lists' scores at its rank, whether or not another list had the row
    before, so it never rises. search, available: as for `select`. Returns at least the first round, and the whole pool
    if no round is below.
    """
    depth = min(available, FIRST_ROUNDS)
    while True:
        ranked = search(depth)
        means = ranked.scores.mean(axis=0)
        below = np.flatnonzero(means < least * means[0])
        if len(below) or depth == available:
            break
        depth = min(available, 2 * depth)
    rounds = max(1, int(below[0])) if len(below) else ranked.rows.shape[1]
    return _selection(ranked, round_robin(ranked.rows[:, :rounds], rounds * queries))


def _selection(ranked: Ranked, places: IntArray) -> Selection:
    """places: as from `round_robin`."""
    rank, query = np.divmod(places, len(ranked.rows))
    return Selection(ranked.rows[query, rank], query, rank, ranked.scores[query, rank], int(rank[-1]) + 1)


def predicted_depth(search: Callable[[int], Ranked], queries: int, budget: int, sampled: int, available: int) -> int:
    """Estimates how deep lists of the whole pool (of `available` rows) must be, from a sample of `sampled` of them.

    search: the lists of the sample. With a proportional share of the budget, the depth needed in the sample is smaller
    by that share; `SAMPLE_MARGIN` covers the error. A wrong estimate does not change the selection.
    """
    share = sampled / available
    some = select(search, queries, max(1, round(budget * share)), sampled)
    return min(available, int(np.ceil(SAMPLE_MARGIN * some.depth / share)))


def random_subset(rows: int, budget: int, seed: int) -> IntArray:
    """(budget,) distinct rows of a pool in random order; the result for a smaller budget is a prefix of this one.

    Each row draws 64 bits and the smallest win: a function of (seed, rows) independent of the numpy release, unlike its
    permutations. Raises ConfigError when the pool holds fewer rows.
    """
    if not 0 < budget <= rows:
        raise ConfigError(f"budget.images={budget:,} but the pool holds only {rows:,} images")
    lots = np.random.Philox(key=fold(seed, "random subset")).random_raw(rows)
    candidates = np.flatnonzero(lots <= np.partition(lots, budget - 1)[budget - 1])
    return candidates[np.argsort(lots[candidates], kind="stable")][:budget]


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
