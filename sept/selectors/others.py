"""Other ways to choose than Algorithm 1, behind one interface, so that they can be compared at equal budget.

Each reads the pool's features and the task's, gives exactly `budget` distinct rows in the order chosen: a function of
the seed, ties by pool row, without the rows that have no vector or were removed. Shapes: N pool rows, Q queries, D dim.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sept.data.rng import fold
from sept.errors import ConfigError
from sept.retrieval.cluster import by_mass, centroids, nearest
from sept.retrieval.domain import separate
from sept.retrieval.exact import exact_queries
from sept.retrieval.features import Features, IntArray
from sept.retrieval.index import Ranked
from sept.retrieval.leaks import FilteredLists
from sept.retrieval.select import random_subset

POOL_SAMPLE = 20_000  # pool images that stand for the pool: the classifier's other domain
CLUSTER_SAMPLE = 100_000  # pool images that the clusters are found on
CLUSTERS, LEAST_PER_CLUSTER = 1_000, 20  # clusters, fewer where the sample has less for each
BLOCK_ROWS = 8192
FIRST_DEPTH = 1.5  # of the lists whose union is taken, in units of budget / queries


@dataclass(frozen=True)
class SelectionContext:
    """What a selector chooses from and for. queries: (Q, D) float32 unit vectors; search(depth): their ranked lists
    over the whole pool, as Algorithm 1 gets them; removed: rows not to be chosen."""

    features: Features
    queries: npt.NDArray[np.float32]
    budget: int
    seed: int
    search: Callable[[int], Ranked]
    removed: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    device: str = "cpu"

    @property
    def masked(self) -> IntArray:
        """The rows that cannot be chosen, ascending."""
        return np.union1d(self.features.skipped, self.removed)


def choose(name: str, choice: SelectionContext) -> IntArray:
    """(budget,) pool rows by the selector of this name. Raises ConfigError when the pool holds fewer."""
    available = choice.features.rows - len(choice.masked)
    if not 0 < choice.budget <= available:
        raise ConfigError(f"budget.images={choice.budget:,} but the pool holds only {available:,} readable images")
    rows = SELECTORS[name](choice)
    assert len(np.unique(rows)) == choice.budget == len(rows), f"{name} broke the budget"
    return rows


def union_topk(choice: SelectionContext) -> IntArray:
    """The union of the k best of every query, with the smallest k that reaches the budget, cut to it by similarity
    to the nearest query that names a row (SEPT, Task-specific Instance Search: the text's looser version of Alg. 1)."""
    lists = FilteredLists(choice.search, choice.features.embedded)
    lists.removed = np.setdiff1d(choice.removed, choice.features.skipped)
    depth = min(lists.available, int(np.ceil(FIRST_DEPTH * choice.budget / len(choice.queries))))
    while True:
        ranked = lists(depth)
        _, first = np.unique(ranked.rows.T, return_index=True)  # rank by rank: where each row is named first
        if len(first) >= choice.budget:
            break
        assert depth < lists.available, "complete lists lack some readable rows"
        depth = min(lists.available, 2 * depth)
    k = int(np.sort(first)[choice.budget - 1]) // len(choice.queries) + 1
    named, scores = ranked.rows[:, :k].ravel(), ranked.scores[:, :k].ravel()
    by_similarity = named[np.lexsort((named, -scores))]
    _, best = np.unique(by_similarity, return_index=True)
    return by_similarity[np.sort(best)[: choice.budget]]


def classifier(choice: SelectionContext) -> IntArray:
    """The rows that a domain classifier, task against a random sample of the pool, holds most for the task's (SEPT
    Eq. 4, taken literally). One pass over the features; the result does not depend on their blocks."""
    weights, _ = separate(choice.queries, choice.features.take(_sample(choice, POOL_SAMPLE, "classifier")))
    exact = exact_queries(weights / max(np.linalg.norm(weights), np.finfo(float).tiny))
    rows, scores = np.empty(0, dtype=np.int64), np.empty(0)
    for new, vectors in _open_blocks(choice):
        rows = np.concatenate([rows, new])
        scores = np.concatenate([scores, vectors.astype(np.float64) @ exact])
        if len(rows) > 2 * choice.budget + BLOCK_ROWS:
            rows, scores = _best(rows, scores, choice.budget)
    return _best(rows, scores, choice.budget)[0]


def cluster(choice: SelectionContext) -> IntArray:
    """Random rows of the clusters that the task's images fall into, in proportion to how many do (k-means over the pool
    and balanced draws, as large curated data sets are made; Vo et al. 2024 sample the clusters of their own pool).

    Where those clusters hold too little, the ones next to the task follow whole, nearest first. Two passes: a sample's
    for the clusters, one for the cluster of every row; 4 N bytes.
    """
    sample = choice.features.take(_sample(choice, CLUSTER_SAMPLE, "cluster"))
    count = max(1, min(CLUSTERS, len(sample) // LEAST_PER_CLUSTER))
    centres = centroids(sample, count, choice.seed, choice.device)
    label = np.full(choice.features.rows, -1, dtype=np.int32)
    for rows, vectors in _open_blocks(choice):
        label[rows] = nearest(vectors, centres, choice.device)[0]
    mass = np.bincount(nearest(choice.queries, centres, choice.device)[0], minlength=count)
    closeness = (choice.queries @ centres.T).max(axis=0)
    return by_mass(label, mass, closeness, choice.budget, choice.seed)


SELECTORS: dict[str, Callable[[SelectionContext], IntArray]] = {
    "union_topk": union_topk,
    "classifier": classifier,
    "cluster": cluster,
}


def _sample(choice: SelectionContext, most: int, purpose: str) -> IntArray:
    """At most `most` random rows that can be chosen, ascending; a purpose has its own."""
    masked = choice.masked
    wanted = min(most + len(masked), choice.features.rows)
    drawn = random_subset(choice.features.rows, wanted, fold(choice.seed, purpose))
    return np.sort(drawn[~np.isin(drawn, masked)][:most])


def _open_blocks(choice: SelectionContext) -> Iterator[tuple[IntArray, np.ndarray]]:
    """The rows (n,) of each block that can be chosen, and their vectors (n, D)."""
    masked = choice.masked
    for first, vectors in choice.features.blocks(BLOCK_ROWS):
        keep = np.ones(len(vectors), dtype=bool)
        begin, end = np.searchsorted(masked, (first, first + len(vectors)))
        keep[masked[begin:end] - first] = False
        yield first + np.flatnonzero(keep), vectors[keep]


def _best(rows: IntArray, scores: np.ndarray, budget: int) -> tuple[IntArray, np.ndarray]:
    """The first `budget` by (-score, row)."""
    order = np.lexsort((rows, -scores))[:budget]
    return rows[order], scores[order]
