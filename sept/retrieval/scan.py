"""Streams the pool's rows to the device in blocks, multiplies them with the queries, and keeps the few high scores.

Turns a feature store or its int8 copy into hits. Threads read the next blocks into staging buffers while earlier ones
are multiplied; a separate lane copies them to a GPU (`lanes`); there, or on a CPU directly from the staging buffer,
they are converted for the product. It may be computed in bfloat16 if that is faster: the error of its scores is bounded
(`Arithmetic.error`), and users of the hits allow for it. Shapes: Q queries of one product, D dim, n rows of one block,
G scales of a row, h hits.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sept.retrieval import lanes
from sept.retrieval.compact import Compact, scales_of
from sept.retrieval.features import Features, IntArray
from sept.retrieval.lanes import Lane, Mark

BLOCK_ROWS = 8192  # per block on a CPU: 13 MB as float16 at 768 dimensions
FLOAT32_UNIT = 2.0**-24  # half the gap between 1 and the next float32
BFLOAT16_UNIT = 2.0**-8  # half the gap between 1 and the next bfloat16
HIDDEN = -3.0  # below every cosine: the score of a row without a vector
PROBE_SHAPE, PROBE_TRIALS = (256, 768, 2048), 5  # a product of 20 ms at worst
WORTH_IT = 0.8  # bfloat16 brings more candidates: it has to be this much faster


@dataclass(frozen=True)
class Arithmetic:
    """Arithmetic of products: float32, or bfloat16 with sums in float32 and scores rounded to bfloat16."""

    dtype: torch.dtype = torch.float32

    @property
    def rounding(self) -> float:
        """A score is within this share of itself of the sum it was rounded from."""
        return 1.01 * BFLOAT16_UNIT if self.dtype == torch.bfloat16 else 0.0

    def error(self, queries: npt.NDArray[np.float64], residual: float) -> npt.NDArray[np.float64]:
        """(Q,) a bound on the error of a sum, before it is rounded to a score, for any stored vector.

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
    """The faster one on the device: bfloat16 on processors that multiply it natively, else float32."""
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
    """Scores of a block for some queries, and which of them reach a cut. On a GPU, `ahead` selects them there."""

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
    """Context manager for full float32 sums, whatever training has set: TF32 and bfloat16 sums would break the error
    bound."""
    before, matmul = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul
    reduced = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        matmul.allow_bf16_reduced_precision_reduction = reduced


DEVICE_ROWS = 131_072  # at most of a block on a GPU: 200 MB as float16 at 768 dimensions, or one shard
DEVICE_SHARE = 0.25  # of a GPU's free memory, for blocks and their scores
ARRIVING = 2  # blocks on a GPU as they were stored: one is copied while the other is converted
SCORED = 2  # blocks of scores on a GPU: hits of one are collected while the other is computed
READERS, READERS_ON_CPU = 4, 1  # threads; on a CPU products need the cores
WAITING, WAITING_ON_CPU = 2, 1  # staging buffers more than readers: being copied and ready, or being converted
CONVERTED_ROWS = 512  # from float16 to bfloat16 through float32, which stays in the cache: twice as fast as directly


def rows_of_block(features: Features, device: str | torch.device, arithmetic: Arithmetic, queries: int) -> int:
    """How many rows a block has at most for products of `queries` at a time.

    On a CPU what its caches hold; on a GPU as many as the shards and its free memory allow, up to DEVICE_ROWS.
    """
    if lanes.on_host(device):
        return BLOCK_ROWS
    rows = min(DEVICE_ROWS, max(shard.rows for shard in features.shards))
    if not lanes.has_lanes(device):
        return rows
    size = arithmetic.dtype.itemsize
    row = features.dim * (2 * ARRIVING + size) + queries * (SCORED * size + 1)  # 1: which scores reach the cut
    free, _ = torch.cuda.mem_get_info(device)
    return max(BLOCK_ROWS, min(rows, int(DEVICE_SHARE * free / row)))


class Blocks:
    """The pool's rows on the device in order, reusing one buffer."""

    def __init__(
        self,
        features: Features,
        device: str | torch.device,
        arithmetic: Arithmetic,
        block_rows: int,
        readers: int | None = None,
    ) -> None:
        self.features, self.places = features, features.places(block_rows)
        on_cpu = lanes.on_host(device)
        self.readers = readers or (READERS_ON_CPU if on_cpu else READERS)
        rows = max(rows for _, rows in self.places)
        slots = min(self.readers + (WAITING_ON_CPU if on_cpu else WAITING), len(self.places))
        self.staged = [self._buffers(rows, "cpu", lanes.has_lanes(device)) for _ in range(slots)]
        self.arrived = [] if on_cpu else [self._buffers(rows, device) for _ in range(ARRIVING)]
        self.copying, self.multiplying = Lane(device, own=True), Lane(device)
        self.copied = [Mark()] * slots  # out of each staging buffer
        self.converted = [self.multiplying.mark()] * ARRIVING  # out of each buffer of arrivals
        self.loaded = torch.empty((rows, features.dim), dtype=arithmetic.dtype, device=device)
        self.single = torch.empty((CONVERTED_ROWS if on_cpu else min(BLOCK_ROWS, rows), features.dim), device=device)
        self.residual = features.residual if arithmetic.dtype == torch.bfloat16 else 0.0

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """(first row, (n, D)) of every block; valid until the next, for work in the caller's lane."""
        reading: deque[Future[tuple[Tensor, ...]]] = deque()
        ahead = enumerate(self.places)
        with ThreadPoolExecutor(self.readers) as readers:
            try:
                reading.extend(readers.submit(self._filled, *each) for each in islice(ahead, len(self.staged)))
                for number, (first, _) in enumerate(self.places):
                    block = self._load(number, *reading.popleft().result())
                    reading.extend(readers.submit(self._filled, *each) for each in islice(ahead, 1))
                    yield first, block
            finally:
                for each in reading:
                    each.cancel()
                self.copying.mark().wait()  # or the buffers would be freed and reused during a copy

    def _filled(self, number: int, place: tuple[int, int]) -> tuple[Tensor, ...]:
        """Reads a block into its staging buffer, once its previous content has been copied."""
        slot = number % len(self.staged)
        self.copied[slot].wait()
        first, rows = place
        parts = tuple(each[:rows] for each in self.staged[slot])
        self._read(first, *parts)
        return parts

    def _load(self, number: int, *staged: Tensor) -> Tensor:
        """(n, D) in the arithmetic, in the buffer that every call reuses."""
        if not self.arrived:
            return self._converted(*staged)
        slot = number % ARRIVING
        parts = tuple(each[: len(staged[0])] for each in self.arrived[slot])
        with self.copying:
            self.copying.after(self.converted[slot])
            for part, source in zip(parts, staged, strict=True):
                part.copy_(source, non_blocking=True)
        self.copied[number % len(self.staged)] = arrived = self.copying.mark()
        self.multiplying.after(arrived)
        loaded = self._converted(*parts)
        self.converted[slot] = self.multiplying.mark()
        return loaded

    def _buffers(self, rows: int, device: str | torch.device, pinned: bool = False) -> tuple[Tensor, ...]:
        """For a block as it is stored."""
        return (torch.empty((rows, self.features.dim), dtype=torch.float16, device=device, pin_memory=pinned),)

    def _read(self, first: int, *parts: Tensor) -> None:
        """Fills the stored form of n rows from row `first`."""
        self.features.read(first, parts[0].numpy())

    def _converted(self, stored: Tensor, *scales: Tensor) -> Tensor:
        """(n, D) as multiplied, of float16, or of whole numbers and scales (n, G) of as many parts of a row."""
        loaded, rows = self.loaded[: len(stored)], len(self.single)
        for start in range(0, len(stored), rows):
            part = slice(start, start + rows)
            single = self.single[: len(stored[part])].copy_(stored[part])
            for scale in scales:
                single.view(len(single), scale.shape[1], -1).mul_(scale[part, :, None].to(single))
            loaded[part] = single
        return loaded


class CompactBlocks(Blocks):
    """The same from an int8 copy of the pool: half the bytes to read and to copy."""

    def __init__(
        self,
        compact: Compact,
        device: str | torch.device,
        arithmetic: Arithmetic,
        block_rows: int,
        readers: int | None = None,
    ) -> None:
        super().__init__(compact.features, device, arithmetic, block_rows, readers)
        self.compact, self.residual = compact, compact.residual

    def _buffers(self, rows: int, device: str | torch.device, pinned: bool = False) -> tuple[Tensor, ...]:
        widths = ((self.features.dim, torch.int8), (scales_of(self.features.dim), torch.float16))
        return tuple(torch.empty((rows, w), dtype=dtype, device=device, pin_memory=pinned) for w, dtype in widths)

    def _read(self, first: int, *parts: Tensor) -> None:
        whole, scales = (each.numpy() for each in parts)
        self.compact.read(first, whole, scales)
