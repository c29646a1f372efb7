"""Scores of chosen (query, row) pairs in exact arithmetic.

Reads a feature store. Shapes: Q queries, D dim, m pairs, u distinct rows of a chunk.
"""

import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sept.retrieval.features import Features, IntArray

CHUNK_ROWS = 1024  # 6 MB as float64 at 768 dimensions
WHOLE = 2.0**28  # queries are multiples of its inverse


def exact_queries(queries: np.ndarray) -> npt.NDArray[np.float64]:
    """(Q, D) rounded to 28 binary places.

    Stored components are multiples of 2**-24, so every partial sum of a product is then a multiple of 2**-52 below 2:
    float64 holds it exactly, in whatever order it is summed.
    """
    return np.rint(queries.astype(np.float64) * WHOLE) / WHOLE


def on_all_cores(work: Callable[[int], Any], which: Iterable[int]) -> list[Any]:
    """What `work` gives for each, in order: as many at a time as torch has threads, each on one."""
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(each) for each in which]
    try:
        with ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1)) as pool:
            return list(pool.map(work, which))
    finally:
        torch.set_num_threads(threads)


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

        with warnings.catch_warnings():  # here: of all threads
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
