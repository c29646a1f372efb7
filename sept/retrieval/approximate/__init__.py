"""Approximate indexes in place of the exact scan: an index proposes rows, which are ranked by exact scores.

Two share an interface: `ivf` (faiss, files in a folder) and `milvus` (Milvus Lite in a folder, or a cluster). Both
are built once by `build(folder, features, ...)`, which resumes after a kill, opened by `open_*(folder, features, ...)`,
and searched as `Index.search(queries, depth)`. They differ from the exact scan only in the rows that they miss:

- scores are those of `sept.retrieval.index.search`, bit for bit, and order a list by (-score, row);
- skipped rows were never added;
- a list has the requested length. If the probed cells cannot fill it, the search is repeated with twice the probes,
finally with all cells, so that complete lists hold every readable row and `select` ends as with an exact scan. The top
of a deeper search may differ from that of a shallower one, so Algorithm 1's choice depends on the first depth.

Shapes: Q queries, D dim, K budget.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sept.data.rng import fold
from sept.errors import ConfigError, DataError
from sept.retrieval.candidates import exact_queries
from sept.retrieval.features import Features, IntArray
from sept.retrieval.index import check_queries, search
from sept.retrieval.select import Ranked, random_subset, select

TRAINING_PER_CELL = 39  # below this k-means fits noise; faiss warns
SPARE_SHARE, SPARE_LEAST = 8, 64  # proposals beyond the depth, since 8-bit codes misrank rows near the cut

Fetch = Callable[[np.ndarray, int, int], IntArray]
Progress = Callable[[int], None]


class Index(Protocol):
    """The index as the selection uses it. `facts` describe it and how it was searched, for the result row."""

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def search(self, queries: np.ndarray, depth: int) -> Ranked:
        """The (nearly) `depth` most similar pool rows of each query (Q, D) float32 of unit length; all if fewer."""
        ...


def cells(nlist: int, vectors: int) -> int:
    """Number of cells for `vectors`: `nlist`, or fewer for a small pool."""
    return max(1, min(nlist, vectors // TRAINING_PER_CELL))


def probed(nprobe: int, nlist: int, made: int) -> int:
    """How many of the `made` cells are the share nprobe / nlist, rounded up. Raises ConfigError if it is none."""
    if not 0 < nprobe <= nlist:
        raise ConfigError(f"index.nprobe={nprobe} must be between 1 and index.nlist={nlist}")
    return -(-nprobe * made // nlist)


def filled(
    fetch: Fetch, queries: np.ndarray, features: Features, depth: int, probes: int, made: int
) -> tuple[Ranked, int]:
    """Ranked lists of min(depth, features.embedded) from an index of `made` cells, and the most cells probed.

    fetch(queries (q, D), wanted, probes) proposes distinct rows (q, wanted) int64, padded with -1.
    Raises DataError if even all cells hold too few: the index was built from other features.
    """
    check_queries(queries, features)
    depth = min(depth, features.embedded)
    wanted = min(depth + max(depth // SPARE_SHARE, SPARE_LEAST), features.embedded)
    proposed = np.full((len(queries), wanted), -1, dtype=np.int64)
    short = np.arange(len(queries))
    while True:
        proposed[short] = fetch(queries[short], wanted, probes)
        short = short[(proposed[short] >= 0).sum(1) < depth]
        if not len(short):
            break
        if probes >= made:
            held = int((proposed[short[0]] >= 0).sum())
            raise DataError(f"the index returned {held:,} rows of {features.embedded:,}: delete it and build it again")
        probes = min(2 * probes, made)
    return _rescored(queries, features, proposed, depth), probes


def _rescored(queries: np.ndarray, features: Features, proposed: IntArray, depth: int) -> Ranked:
    """The best `depth` of the proposed rows (Q, wanted) by (-score, row); scores are exact for queries rounded to 28
    binary places, as in the exact search: float64 represents every partial sum, in any order."""
    exact = exact_queries(queries)
    ranked = Ranked(np.empty((len(queries), depth), dtype=np.int64), np.empty((len(queries), depth)))
    for query, row in enumerate(proposed):
        rows = row[row >= 0]
        scores = features.take(rows).astype(np.float64) @ exact[query]
        best = np.lexsort((rows, -scores))[:depth]
        ranked.rows[query], ranked.scores[query] = rows[best], scores[best]
    return ranked


def readable(features: Features, first: int, last: int) -> IntArray:
    """The rows of [first, last) that have a vector, ascending."""
    begin, end = np.searchsorted(features.skipped, (first, last))
    return np.delete(np.arange(first, last), features.skipped[begin:end] - first)


def identity(features: Features, **settings: Any) -> dict[str, Any]:
    """What an unfinished index must match to be resumed."""
    return {"rows": features.rows, "embedded": features.embedded, "dim": features.dim, **settings}


def require_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises DataError naming the file unless its features and settings are the expected ones."""
    changed = {name: (found.get(name), value) for name, value in wanted.items() if found.get(name) != value}
    if changed:
        told = ", ".join(f"{name} {old}, now {new}" for name, (old, new) in changed.items())
        raise DataError(f"{path}: the index was begun with {told}; delete {path.parent} and build it again")


def recall(approximate: Ranked, exact: Ranked, depth: int) -> float:
    """Share of the exact lists' first `depth` rows that the approximate lists' first `depth` hold, over all queries."""
    both = zip(approximate.rows[:, :depth], exact.rows[:, :depth], strict=True)
    return sum(len(np.intersect1d(found, wanted)) for found, wanted in both) / exact.rows[:, :depth].size


def compare(
    index: Index, features: Features, queries: np.ndarray, budget: int, sample: int, seed: int, device: str = "cpu"
) -> dict[str, float | int]:
    """The quality loss of the index on at most `sample` of the queries, against one exact scan; for the result row.

    index_recall: `recall` at index_depth, the depth that Algorithm 1 needs. index_kept: share of its set that it also
    picks from the index's lists. For a sample the budget shrinks with the number of queries, so the depth stays
    similar.
    """
    chosen = np.sort(random_subset(len(queries), min(sample, len(queries)), fold(seed, "index sample")))
    some = queries[chosen]
    share = min(features.embedded, max(1, round(budget * len(some) / len(queries))))
    exact, wanted = _selected(lambda depth: search(some, features, depth, device), len(some), share, features.embedded)
    ours, picked = _selected(lambda depth: index.search(some, depth), len(some), share, features.embedded)
    depth = int(wanted[1])
    return {
        "index_recall": recall(ours, exact, depth),
        "index_kept": len(np.intersect1d(picked[0], wanted[0])) / share,
        "index_depth": depth,
        "index_queries_compared": len(some),
    }


def _selected(
    lists: Callable[[int], Ranked], queries: int, budget: int, available: int
) -> tuple[Ranked, tuple[IntArray, int]]:
    """The deepest lists that Algorithm 1 requested, its rows, and the depth it needed."""
    seen: list[Ranked] = []

    def kept(depth: int) -> Ranked:
        seen[:] = [lists(depth)]
        return seen[0]

    found = select(kept, queries, budget, available)
    return seen[0], (found.rows, found.depth)
