"""The rows that can still be among a query's best, found without a sort.

Turns hits of a scan into exact ranked lists. Scores are counted in narrow bins: a bin edge that `depth` of them reach
is a threshold below which nothing has to be kept. Kept rows are ranked in float64 at the end, so that the lists depend
neither on the block size nor on threads, device or arithmetic. Exact scores of chosen pairs are read from the feature
store. Shapes: Q queries, D dim, h hits, m candidates or pairs, u distinct rows of a chunk.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sept.retrieval.features import Features, IntArray
from sept.retrieval.scan import Arithmetic, Hits
from sept.runtime.threads import in_order

CHUNK_ROWS = 1024  # 6 MB as float64 at 768 dimensions
WHOLE = 2.0**28  # queries are multiples of its inverse


def exact_queries(queries: np.ndarray) -> npt.NDArray[np.float64]:
    """(Q, D) rounded to 28 binary places.

    Stored components are multiples of 2**-24, so every partial sum of a product is then a multiple of 2**-52 below 2:
    float64 holds it exactly, in whatever order it is summed.
    """
    return np.rint(queries.astype(np.float64) * WHOLE) / WHOLE


def on_all_cores(work: Callable[[int], Any], which: Iterable[int]) -> list[Any]:
    """The results of `work`, in order: as many at a time as torch has threads, each on one."""
    return [*in_order(work, which, torch.get_num_threads())]


class ExactScores:
    """Dot products of queries (Q, D), as `exact_queries` gives them, with stored rows."""

    def __init__(self, features: Features, queries: npt.NDArray[np.float64]) -> None:
        self.features, self.queries = features, torch.from_numpy(queries)

    def __call__(self, query: np.ndarray, row: IntArray) -> npt.NDArray[np.float64]:
        """(m,) float64 of the pairs (m,), whose rows ascend; every row is read once."""
        scores = torch.empty(len(row), dtype=torch.float64)
        rows, counts = torch.unique_consecutive(torch.from_numpy(row), return_counts=True)
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        columns = torch.from_numpy(query).to(torch.int64)

        def chunk(start: int) -> None:
            stop = min(start + CHUNK_ROWS, len(rows))
            pairs = slice(int(ends[start]), int(ends[stop]))
            vectors = torch.from_numpy(self.features.take_half(rows[start:stop].numpy())).double()
            scores[pairs] = self._products(vectors, ends[start : stop + 1] - ends[start], columns[pairs])

        with warnings.catch_warnings():  # set here for all threads
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
            on_all_cores(chunk, range(0, len(rows), CHUNK_ROWS))
        return scores.numpy()

    def _products(self, vectors: Tensor, ends: Tensor, query: Tensor) -> Tensor:
        """(m,) of u rows (u, D), row i with the queries query[ends[i]:ends[i + 1]]."""
        pairs = torch.sparse_csr_tensor(
            ends,
            query,
            torch.zeros(len(query), dtype=torch.float64),
            (len(vectors), len(self.queries)),
            check_invariants=False,
        )
        return torch.sparse.sampled_addmm(pairs, vectors, self.queries.T, beta=0.0).values()


BINS, LOWEST, HIGHEST = 4096, -1.02, 1.02  # of a score; a unit vector in float16 is at most 1.002 long
STEPS = 64  # bins checked together when an edge moves up
SPARE_SHARE, SPARE_LEAST = 2, 512  # kept without exact scoring: twice the depth plus 512; then near-ties are resolved

FloatArray = npt.NDArray[np.float64]


class Edges(Protocol):
    """A counter of scores."""

    def edges(self) -> FloatArray:
        """(Q,) values that `depth` of the counted scores reach; minus infinity if there were fewer."""


class Bins:
    """Counts the scores of each query in bins, and knows the highest edge that `depth` of them reach."""

    def __init__(self, queries: int, depth: int) -> None:
        self.depth = depth
        self.counts = torch.zeros((queries, BINS + STEPS), dtype=torch.int32)
        self.bin = np.zeros(queries, dtype=np.int64)
        self.reached = np.zeros(queries, dtype=np.int64)  # scores in its bin and above

    def add(self, hits: Hits) -> None:
        """Counts scores between LOWEST and HIGHEST."""
        bins = ((hits.score - np.float32(LOWEST)) * np.float32(BINS / (HIGHEST - LOWEST))).astype(np.int32)
        place = torch.from_numpy(hits.query * np.int64(BINS + STEPS) + bins)
        self.counts.view(-1).scatter_add_(0, place, torch.ones(1, dtype=torch.int32).expand(len(place)))
        above = np.concatenate([[0], np.cumsum(bins >= np.repeat(self.bin, np.diff(hits.starts)))])
        self.reached += np.diff(above[hits.starts])
        self._climb()

    def edges(self) -> FloatArray:
        """(Q,) the edges, a little lower for rounding; minus infinity where there were fewer than `depth` scores."""
        edges = LOWEST + (self.bin - 0.01) * ((HIGHEST - LOWEST) / BINS)
        return np.where(self.reached >= self.depth, edges, -np.inf)

    def _climb(self) -> None:
        moving = np.flatnonzero(self.reached >= self.depth)
        while len(moving):
            columns = torch.from_numpy(self.bin[moving, None] + np.arange(STEPS))
            passed = self.counts[torch.from_numpy(moving)[:, None], columns].numpy().cumsum(1)
            steps = (self.reached[moving, None] - passed >= self.depth).sum(1)
            self.bin[moving] += steps
            self.reached[moving] -= np.where(steps > 0, passed[np.arange(len(moving)), steps - 1], 0)
            moving = moving[steps == STEPS]


@dataclass(frozen=True)
class _Log:
    """Candidates: query (m,) uint16, pool row (m,) int64, score (m,) float32."""

    query: npt.NDArray[np.uint16]
    row: IntArray
    score: npt.NDArray[np.float32]

    def take(self, places: IntArray) -> "_Log":
        return _Log(self.query.take(places), self.row.take(places), self.score.take(places))

    def where(self, keep: npt.NDArray[np.bool_]) -> "_Log":
        return self.take(np.flatnonzero(keep))


class Candidates:
    """For some queries, every row that can be among their `depth` best.

    A sum (see `Arithmetic`) is off by at most `error`. So if `depth` scores reach an edge, `depth` rows are at least as
    similar as the edge minus rounding minus `error`, and a row whose sum is another `error` below cannot be among the
    best. Edges only rise: a cut from fewer scores, as of some blocks ago, lets more through and loses nothing. Nor does
    one from scores whose rows are still to be added, as long as all are before `ranked`.
    """

    def __init__(
        self, features: Features, queries: FloatArray, depth: int, arithmetic: Arithmetic, residual: float
    ) -> None:
        self.depth, self.arithmetic = depth, arithmetic
        self.exact = ExactScores(features, queries)
        self.error = arithmetic.error(queries, residual)
        self.bins = Bins(len(queries), depth)
        self.counted: Edges = self.bins  # or another counter of the kept scores
        self.floor = np.full(len(queries), -np.inf)  # sums below it are irrelevant for another reason
        self.guess = np.full(len(queries), -np.inf)
        self.log: list[_Log] = []
        self.logged = 0
        self.peace = SPARE_SHARE * depth + SPARE_LEAST

    def expect(self, edges: FloatArray) -> None:
        """Drops everything below these edges, assuming that `depth` scores reach them; checked at the end."""
        self.guess = self._below(edges)
        self.floor = np.maximum(self.floor, self.guess)

    @property
    def cut(self) -> torch.Tensor:
        """(Q,) float32: sums below it need not be added."""
        cut = np.maximum(np.maximum(self.floor, self._below(self.counted.edges())), LOWEST)
        return torch.from_numpy(cut.astype(np.float32))

    def add(self, hits: Hits, first_row: int) -> None:
        """Adds the hits of a block that starts at pool row `first_row`."""
        self.bins.add(hits)
        self.keep(hits.query, hits.column + first_row, hits.score)

    def keep(self, query: npt.NDArray[np.uint16], row: IntArray, score: npt.NDArray[np.float32]) -> bool:
        """Adds hits (h,) that are counted elsewhere; returns whether the floor may have risen."""
        self.log.append(_Log(query, row, score))
        self.logged += len(query)
        if self.logged <= 2 * len(self.error) * self.peace:
            return False
        self._compact()
        return True

    def ranked(self) -> tuple[IntArray, FloatArray, npt.NDArray[np.bool_]]:
        """Rows (Q, depth) int64 and scores (Q, depth) float64, by (-score, row); and (Q,) whether these are certain.

        Uncertain lists are those that may lack rows dropped by `expect`: they may also be too short, and are padded
        with the row -1.
        """
        found = self._gathered()
        rows = np.full((len(self.error), self.depth), -1)
        scores = np.full(rows.shape, -np.inf)
        for query, row, score in self._lists(found):
            rows[query, : len(row)], scores[query, : len(row)] = row, score
        return rows, scores, scores[:, -1] >= self.guess + self.error

    def _lists(self, found: _Log) -> Iterator[tuple[int, IntArray, FloatArray]]:
        """The best `depth` of the candidates of each query that has any: it, their rows, their float64 scores."""
        score = self._exactly(found)
        order = np.argsort(found.query, kind="stable")
        ends = np.cumsum(np.bincount(found.query, minlength=len(self.error)))

        def best(query: int) -> IntArray:
            here = order[ends[query - 1] if query else 0 : ends[query]]
            return here[_descending(score[here])[: self.depth]]

        present = np.flatnonzero(np.diff(ends, prepend=0)).tolist()
        for query, places in zip(present, on_all_cores(best, present), strict=True):
            yield query, found.row[places], score[places]

    def _below(self, edges: FloatArray) -> FloatArray:
        """The cut that follows from edges that `depth` scores reach."""
        return below(edges, self.arithmetic, self.error)

    def _gathered(self) -> _Log:
        """The candidates left at the present cut, by row, as the log's only part."""
        cut = self.cut.to(self.arithmetic.dtype).float().numpy()
        left = [part.where(part.score >= cut[part.query]) for part in self.log]
        parts = left or [_Log(np.empty(0, np.uint16), np.empty(0, np.int64), np.empty(0, np.float32))]
        whole = _Log(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("query", "row", "score")))
        whole = whole.take(radix_argsort(whole.row))
        self.log, self.logged = [whole], len(whole.query)
        return whole

    def _compact(self) -> None:
        """Drops what fell below the cut; if many near-ties remain, such as copies of one image, scores them exactly."""
        found = self._gathered()
        crowded = np.bincount(found.query, minlength=len(self.error)) > self.peace
        if self.logged <= len(self.error) * self.peace:
            return
        here = crowded[found.query]
        parts = [found.where(~here)]
        for query, rows, scores in self._lists(found.where(here)):
            self.floor[query] = max(self.floor[query], scores[-1] - self.error[query])
            near = scores.astype(np.float32)
            parts.append(_Log(np.full(len(rows), query, dtype=np.uint16), rows, near))
        self.log, self.logged = parts, sum(len(part.query) for part in parts)

    def _exactly(self, found: _Log) -> FloatArray:
        """(m,) float64 scores, checked against the scan's scores."""
        score = self.exact(found.query, found.row)
        off = np.abs(score - found.score) - self.arithmetic.rounding * np.abs(found.score)
        worst = off.max(initial=0.0)
        assert worst <= self.error.max(), f"a product is off by {worst:.2g}: was it computed with fewer bits?"
        return score


def below(edges: Any, arithmetic: Arithmetic, error: Any) -> Any:
    """(Q,) float64 the cut that follows from edges that `depth` scores reach, each; of arrays or of tensors."""
    return edges - arithmetic.rounding * abs(edges.clip(LOWEST)) - 2 * error


def radix_argsort(values: IntArray) -> IntArray:
    """The stable order of integers from 0 to 2**48, five times as fast as a comparison sort."""
    order = np.argsort(values.astype(np.uint16), kind="stable")  # numpy's sort of 16 bits is a radix sort
    for shift in range(16, int(values.max(initial=0)).bit_length(), 16):
        order = order.take(np.argsort((values >> shift).astype(np.uint16).take(order), kind="stable"))
    return order


def _descending(scores: FloatArray) -> IntArray:
    """The stable order by -score. Ties are rare, and an unstable sort is twice as fast."""
    order = np.argsort(-scores)
    ordered = scores[order]
    return np.argsort(-scores, kind="stable") if (ordered[1:] == ordered[:-1]).any() else order


@dataclass
class Part:
    """Queries (Q, D) on the device that are multiplied together, and their candidates."""

    queries: Tensor
    candidates: Candidates
