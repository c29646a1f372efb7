"""The products of a block of the pool with the queries, and the few scores worth keeping.

Reads blocks (`blocks`), gives hits. The product may be computed in bfloat16 where the processor is faster at it: how
far off its scores can be is known (`Arithmetic.error`), and whoever uses the hits allows for it.
Shapes: Q queries, D dim, n rows of one block, h hits.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sept.retrieval.features import IntArray

BLOCK_ROWS = 8192  # of a block on a CPU: 13 MB as float16 at 768 dimensions
FLOAT32_UNIT = 2.0**-24  # half the gap between 1 and the next float32
BFLOAT16_UNIT = 2.0**-8  # half the gap between 1 and the next bfloat16
HIDDEN = -3.0  # below every cosine: the score of a row without a vector
PROBE_SHAPE, PROBE_TRIALS = (256, 768, 2048), 5  # a product of 20 ms at worst
WORTH_IT = 0.8  # bfloat16 brings more candidates: it has to be this much faster


@dataclass(frozen=True)
class Arithmetic:
    """What products are computed in: float32, or bfloat16 with sums in float32 and scores rounded to bfloat16."""

    dtype: torch.dtype = torch.float32

    @property
    def rounding(self) -> float:
        """A score is within this share of itself of the sum it was rounded from."""
        return 1.01 * BFLOAT16_UNIT if self.dtype == torch.bfloat16 else 0.0

    def error(self, queries: npt.NDArray[np.float64], residual: float) -> npt.NDArray[np.float64]:
        """(Q,) by how much a sum, before it is rounded to a score, can be off for any stored vector.

        residual: the largest length of a stored vector less what is multiplied in its place. A float32 sum of D
        products of two unit vectors is off by at most D units, in any order (Higham, Accuracy and Stability of
        Numerical Algorithms, section 3.1). 3 more for rounding the query, the score kept and the cut; 1 % more for the
        second order and for lengths that float16 moved. Where vectors are off, so is the sum, by at most the product
        of the lengths (Cauchy-Schwarz).
        """
        rounded = torch.from_numpy(queries).to(torch.float32).to(self.dtype).double().numpy()
        off = np.linalg.norm(queries - rounded, axis=1) if self.dtype == torch.bfloat16 else 0.0
        units = (queries.shape[1] + 3) * FLOAT32_UNIT
        return 1.01 * (units + off + residual * np.linalg.norm(rounded, axis=1))


def arithmetic(device: str | torch.device) -> Arithmetic:
    """The faster one there: bfloat16 on processors that multiply it natively, else float32."""
    if torch.device(device).type != "cpu":
        return Arithmetic(torch.bfloat16) if torch.cuda.is_bf16_supported(including_emulation=False) else Arithmetic()
    return Arithmetic(torch.bfloat16) if _bfloat16_pays(torch.get_num_threads()) else Arithmetic()


@cache
def _bfloat16_pays(threads: int) -> bool:
    q, d, n = PROBE_SHAPE
    queries, rows = torch.ones(q, d), torch.ones(n, d)
    return _seconds(queries.bfloat16(), rows.bfloat16()) < WORTH_IT * _seconds(queries, rows)


def _seconds(queries: Tensor, rows: Tensor) -> float:
    walls = []
    for _ in range(PROBE_TRIALS):
        start = time.perf_counter()
        torch.mm(queries, rows.T)
        walls.append(time.perf_counter() - start)
    return min(walls)


@dataclass(frozen=True)
class Hits:
    """Scores (h,) float32 that reach the cut, with the query (h,) uint16 and the column of the block (h,) int64.

    They come query by query: those of query i are from starts[i] to starts[i + 1].
    """

    query: npt.NDArray[np.uint16]
    column: IntArray
    score: npt.NDArray[np.float32]
    starts: IntArray

    @classmethod
    def at(cls, place: IntArray, score: npt.NDArray[np.float32], shape: Sequence[int]) -> "Hits":
        """Of scores at places (h,), ascending, of a matrix (Q, n) written row by row."""
        begins = np.arange(shape[0] + 1) * shape[1]
        starts = np.searchsorted(place, begins)
        query = np.repeat(np.arange(shape[0], dtype=np.uint16), np.diff(starts))
        return cls(query, place - begins[query], score, starts)


class Products:
    """Scores of a block for some queries, and which of them reach a cut. On a GPU, `ahead` picks them there."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, queries: Tensor, block: Tensor, hidden: IntArray | Tensor) -> Tensor:
        """(Q, n) scores in the arithmetic of the arguments; HIDDEN in the columns `hidden`. Valid until the next.

        hidden: int64; on a GPU a tensor there, or the host would wait while it is copied.
        """
        scores = self._buffer("scores", (len(queries), len(block)), block.dtype, block.device)
        torch.mm(queries, block.T, out=scores)
        if len(hidden):
            columns = hidden if isinstance(hidden, Tensor) else torch.from_numpy(hidden).to(block.device)
            scores.index_fill_(1, columns, HIDDEN)
        return scores

    def reaching(self, scores: Tensor, cut: Tensor) -> Hits:
        """The scores (Q, n) on a CPU at or above their query's cut (Q,) float32, query by query in order of columns.

        The cut is rounded as the scores were: rounding keeps order, so no sum that reached the cut falls below it.
        numpy compares and packs ten times as fast as torch; bfloat16 above 0 is ordered like its bits.
        """
        cut = cut.to(scores.dtype)
        found = self._buffer("found", scores.shape, torch.bool, scores.device)
        if scores.dtype == torch.float32:
            np.greater_equal(scores.numpy(), cut[:, None].numpy(), out=found.numpy())
        elif bool((cut > 0).all()):
            bits = cut.view(torch.int16)[:, None].numpy()
            np.greater_equal(scores.view(torch.int16).numpy(), bits, out=found.numpy())
        else:
            torch.ge(scores, cut[:, None], out=found)
        place = np.flatnonzero(found.numpy())
        return Hits.at(place, scores.view(-1)[torch.from_numpy(place)].float().numpy(), scores.shape)

    def _buffer(self, name: str, shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        size = int(np.prod(shape))
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, dtype=dtype, device=device)
        return self._buffers[name][:size].view(*shape)


@contextmanager
def full_float32() -> Iterator[None]:
    """Sums with all 24 bits, whatever training has set: TF32 and bfloat16 sums would break the bound on the error."""
    before, matmul = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul
    reduced = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        matmul.allow_bf16_reduced_precision_reduction = reduced
