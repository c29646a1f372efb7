"""Exact search: every pool vector is read once, for all queries together.

Reads a feature store, gives ranked lists. One float32 product a block finds the candidates; those that float32 rounding
could put on either side of the cut are all kept and told apart in float64 at the end, so that the lists depend neither
on the block size nor on threads or device. Shapes: Q queries, N pool rows, D dim, n rows of one block, w buffer width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sept.errors import ConfigError, DataError
from sept.retrieval.features import UNIT_TOLERANCE, Features

BLOCK_ROWS = 8192  # 25 MB as float32 at 768 dimensions
QUERIES_PER_PRODUCT = 1024  # bounds the score matrix of one product to 34 MB
SPARE_SHARE, SPARE_LEAST = 8, 64  # candidates kept beyond the depth: depth / 8, and 64 at least
LOWEST, EMPTY = -2.0, -3.0  # below every cosine; and what fills a free place or hides a row
FLOAT32_UNIT = 2.0**-24  # half the gap between 1 and the next float32


@dataclass(frozen=True)
class Ranked:
    """Ranked lists: rows (Q, depth) int64 and scores (Q, depth) float64, most similar first, ties by the lower row."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]


def search(
    queries: np.ndarray,
    features: Features,
    depth: int,
    device: str | torch.device = "cpu",
    block_rows: int = BLOCK_ROWS,
    progress: Callable[[int], None] | None = None,
) -> Ranked:
    """The `depth` most similar pool rows of every query (SEPT Alg. 1, lines 2-5); all of them if the pool holds fewer.

    queries: (Q, D) float32, of unit length. Scores are dot products with the stored float16 vectors, exact for queries
    rounded to 28 binary places. Skipped rows are never returned. Memory: about 4 times that of the result, plus one
    block and one product. progress is called with the number of rows read. Raises DataError for a query that is not a
    unit vector, ConfigError if the store was made with another dim.
    """
    _check_queries(queries, features)
    depth = min(depth, features.embedded)
    assert depth > 0, "a search needs a depth and a pool"
    assert len(queries), "a search needs queries"
    parts = [
        _Candidates(queries[start : start + QUERIES_PER_PRODUCT], features, depth, device)
        for start in range(0, len(queries), QUERIES_PER_PRODUCT)
    ]
    with _full_float32():
        for first, block in _blocks_on(device, features, block_rows):
            begin, end = np.searchsorted(features.skipped, (first, first + len(block)))
            skipped = torch.from_numpy(features.skipped[begin:end] - first).to(device)
            for part in parts:
                scores = part.queries @ block.T  # (q, n)
                scores[:, skipped] = EMPTY
                part.add(scores, first)
            if progress is not None:
                progress(first + len(block))
    lists = [ranked for part in parts for ranked in part.ranked()]
    return Ranked(np.stack([rows for rows, _ in lists]), np.stack([scores for _, scores in lists]))


class _Candidates:
    """For some queries the best rows so far, and every row that float32 rounding could hide among them.

    A row whose float32 score is more than `slack` below the depth-th best float32 score seen cannot be in the final
    list: both scores are off by at most half of it. Such rows are dropped, at the latest when the buffer is full.
    """

    def __init__(self, queries: np.ndarray, features: Features, depth: int, device: str | torch.device) -> None:
        # Stored components are multiples of 2**-24, so with queries in multiples of 2**-28 every partial sum of a
        # product is a multiple of 2**-52 below 2: float64 holds it exactly, in whatever order it is summed.
        self.exact = np.rint(queries.astype(np.float64) * 2**28) / 2**28
        self.queries = torch.from_numpy(self.exact.astype(np.float32)).to(device)
        self.features, self.depth = features, depth
        # A float32 sum of D products of two unit vectors is off by at most D units, in any order (Higham, Accuracy and
        # Stability of Numerical Algorithms, section 3.1). 3 more for rounding the query, the score kept and the
        # threshold; 1 % more for the second order and for lengths that float16 moved.
        self.slack = 2 * 1.01 * (features.dim + 3) * FLOAT32_UNIT
        self.limit = depth + max(depth // SPARE_SHARE, SPARE_LEAST)
        shape = (len(queries), 2 * self.limit)
        self.scores = torch.full(shape, EMPTY, dtype=torch.float32, device=device)  # (q, w)
        self.rows = torch.zeros(shape, dtype=torch.int64, device=device)  # (q, w)
        self.count = torch.zeros(len(queries), dtype=torch.int64, device=device)
        self.threshold = torch.full((len(queries),), LOWEST, device=device)

    def add(self, scores: Tensor, first_row: int) -> None:
        """Takes in the scores (q, n) of n rows of the pool."""
        found = scores >= self.threshold[:, None]
        new = found.sum(1)
        width = self.scores.shape[1]
        if bool((self.count + new > width).any()):
            self._compact()
            if scores.shape[1] > width - self.limit:  # may still not fit
                half = scores.shape[1] // 2
                self.add(scores[:, :half], first_row)
                self.add(scores[:, half:], first_row + half)
                return
            found = scores >= self.threshold[:, None]
            new = found.sum(1)
        query, column = found.nonzero(as_tuple=True)  # query by query
        place = torch.arange(len(query), device=scores.device) + (self.count - new.cumsum(0) + new)[query]
        self.scores[query, place] = scores[query, column]
        self.rows[query, place] = column + first_row
        self.count += new

    def ranked(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The final list of each query: rows (depth,) int64 and scores (depth,) float64."""
        self._compact()
        for query, count in enumerate(self.count.tolist()):
            yield self._exact(query, self.rows[query, :count], self.scores[query, :count])

    def _compact(self) -> None:
        """Raises the threshold to what is known by now and drops what falls below it."""
        top, order = self.scores.topk(self.limit + 1)
        rows = self.rows.gather(1, order)
        self.threshold = (top[:, self.depth - 1] - self.slack).clamp(min=LOWEST)
        kept = top >= self.threshold[:, None]
        settled = {
            query: self._settle(query) for query in kept[:, self.limit].nonzero().flatten().tolist()
        }  # near-ties, copies of one image for instance, outnumber the spare places
        self.scores.fill_(EMPTY)
        self.scores[:, : self.limit] = top.where(kept, EMPTY)[:, : self.limit]
        self.rows[:, : self.limit] = rows[:, : self.limit]
        self.count = kept[:, : self.limit].sum(1)
        for query, (best, scores) in settled.items():
            self.scores[query] = EMPTY
            self.scores[query, : self.depth] = torch.from_numpy(scores).to(self.scores)
            self.rows[query, : self.depth] = torch.from_numpy(best).to(self.rows)
            self.count[query] = self.depth

    def _settle(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """The exact list of the rows seen so far by one query."""
        kept = self.scores[query] >= self.threshold[query]
        return self._exact(query, self.rows[query, kept], self.scores[query, kept])

    def _exact(self, query: int, candidates: Tensor, approximate: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The best `depth` of the candidates by (-float64 score, row)."""
        rows = candidates.cpu().numpy()
        scores = self.features.take(rows).astype(np.float64) @ self.exact[query]
        error = np.abs(scores - approximate.cpu().numpy()).max()
        assert error <= self.slack / 2, f"the float32 product is off by {error:.2g}: was it computed with fewer bits?"
        best = np.lexsort((rows, -scores))[: self.depth]
        return rows[best], scores[best]


def _blocks_on(device: str | torch.device, features: Features, block_rows: int) -> Iterator[tuple[int, Tensor]]:
    """The store's blocks as float32 on the device, each in the same buffer: half precision is slow on CPUs."""
    staging = torch.empty(
        (block_rows, features.dim), dtype=torch.float16, pin_memory=torch.device(device).type == "cuda"
    )
    buffer = torch.empty((block_rows, features.dim), dtype=torch.float32, device=device)
    for first, vectors in features.blocks(block_rows):
        rows = len(vectors)
        staging.numpy()[:rows] = vectors  # reads the disk
        yield first, buffer[:rows].copy_(staging[:rows].to(device))


@contextmanager
def _full_float32() -> Iterator[None]:
    """Products with all 24 bits, whatever training has set: TF32 and bfloat16 would break the bound on the error."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _check_queries(queries: np.ndarray, features: Features) -> None:
    if queries.ndim != 2 or queries.shape[1] != features.dim:
        raise ConfigError(
            f"queries of shape {queries.shape} cannot be searched in {features.files[0].parent}, whose vectors have "
            f"{features.dim} dimensions: embed both with the same retriever"
        )
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE))  # NaN is bad
    if len(bad):
        raise DataError(f"query {bad[0]} has length {norms[bad[0]]:.4g}, expected 1 ({len(bad)} such queries)")
