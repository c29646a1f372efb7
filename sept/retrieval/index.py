"""Exact search: every pool vector is read once, for all queries together.

From a feature store, returns ranked lists. One product per block finds the candidates (`scan`, `candidates`); they are
ranked in exact arithmetic at the end, so that the lists depend neither on the block size nor on threads, device or the
arithmetic of the product. Shapes: Q queries, N pool rows, D dim.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from sept.errors import ConfigError, DataError
from sept.retrieval import lanes
from sept.retrieval.candidates import BINS, SPARE_LEAST, STEPS, Candidates, Part, exact_queries
from sept.retrieval.compact import Compact
from sept.retrieval.embedding import UNIT_TOLERANCE
from sept.retrieval.features import Features, IntArray
from sept.retrieval.scan import Arithmetic, Blocks, CompactBlocks, Products, arithmetic, full_float32, rows_of_block
from sept.retrieval.select import Ranked

QUERIES_PER_PRODUCT = 1024  # bounds the score matrix of one product
QUERIES_ON_GPU = 4096  # the same on a GPU, where the host's work per product does not depend on its size
MEMORY = 2**30  # bytes for the candidates of the queries that share a scan
BYTES_PER_RANK = 140  # of depth: twice the candidates, temporary copies, and the list itself
BYTES_PER_QUERY = 4 * (BINS + STEPS) + 64 * SPARE_LEAST  # independent of the depth
SAMPLE_ROWS = 20_000  # for the first guess of a cut
SAMPLED_POOL = 10  # times the sample: smaller pools are searched without a guess
GUESS_SIGMAS = 3.0  # safety margin of the guess above its expected rank in the sample

Progress = Callable[[int], None]


def search(
    queries: np.ndarray,
    features: Features,
    depth: int,
    device: str | torch.device = "cpu",
    block_rows: int | None = None,
    progress: Progress | None = None,
    memory: int = MEMORY,
    compact: Compact | None = None,
) -> Ranked:
    """The `depth` most similar pool rows of every query (SEPT Alg. 1, lines 2-5); all of them if the pool holds fewer.

    queries: (Q, D) float32, of unit length. Scores are dot products with the stored float16 vectors, exact for queries
    rounded to 28 binary places. Skipped rows are never returned. block_rows: maximum rows of a block; None: chosen for
    the device. memory: bytes for candidates, besides the result and a few blocks; queries that need more are split over
    several scans of the whole pool. compact: an int8 copy to scan instead, with the same result. progress is called
    with the number of rows done, of N. Raises DataError for a query that is not a unit vector, ConfigError if the store
    was made with another dim.
    """
    [ranked] = search_many([(queries, depth)], features, device, block_rows, progress, memory, compact)
    return ranked


def search_many(
    tasks: Sequence[tuple[np.ndarray, int]],
    features: Features,
    device: str | torch.device = "cpu",
    block_rows: int | None = None,
    progress: Progress | None = None,
    memory: int = MEMORY,
    compact: Compact | None = None,
) -> list[Ranked]:
    """`search` for several tasks, each (queries, depth), in one scan: the pool is read once for all of them."""
    for queries, depth in tasks:
        check_queries(queries, features)
        assert depth > 0, "a search needs a depth"
        assert len(queries), "a search needs queries"
    assert features.embedded, "a search needs a pool"
    found = [_Found(exact_queries(queries), min(depth, features.embedded)) for queries, depth in tasks]
    scan = _Scan(features, compact, device, arithmetic(device), block_rows)
    turns = list(_turns(found, features.dim, memory, queries_per_product(device)))
    with full_float32():
        for turn, tiles in enumerate(turns):
            scan(tiles, guess=True, progress=_part(progress, turn, len(turns), features.rows))
    return [Ranked(each.rows, each.scores) for each in found]


def merge(parts: Sequence[tuple[int, Ranked]], depth: int) -> Ranked:
    """The lists of a pool from those of its parts, each with the pool row that it starts at (see `Features.part`).

    Equal to a search of the whole pool to `depth` if every part was searched to `depth`.
    """
    rows = np.concatenate([ranked.rows + first for first, ranked in parts], axis=1)
    scores = np.concatenate([ranked.scores for _, ranked in parts], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :depth]
    return Ranked(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))


@dataclass
class _Found:
    """A task in progress: exact queries (Q, D), and the lists found so far (Q, depth)."""

    queries: npt.NDArray[np.float64]
    depth: int
    rows: IntArray = field(init=False)
    scores: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        shape = (len(self.queries), self.depth)
        self.rows, self.scores = np.empty(shape, dtype=np.int64), np.empty(shape)


@dataclass(frozen=True)
class _Tile:
    """Some queries (q,) of a task, multiplied together."""

    found: _Found
    queries: IntArray


@dataclass
class _Scan:
    """Passes over the pool, each for some tiles."""

    features: Features
    compact: Compact | None
    device: str | torch.device
    arithmetic: Arithmetic
    block_rows: int | None

    def __call__(self, tiles: Sequence[_Tile], guess: bool, progress: Progress | None) -> None:
        """Fills in the lists of the tiles' queries; those for which the guess failed are searched again without it."""
        blocks, products = self._blocks(max(len(tile.queries) for tile in tiles)), Products()
        parts = [self._part(tile, blocks.residual) for tile in tiles]
        if guess and self.features.embedded >= SAMPLED_POOL * SAMPLE_ROWS:
            self._expect(parts, products)
        if lanes.on_host(self.device):
            self._at_once(blocks, parts, products, progress)
        else:
            self._ahead(blocks, parts, progress)
        again = []
        for tile, part in zip(tiles, parts, strict=True):
            ranked_rows, ranked_scores, certain = part.candidates.ranked()
            part.candidates.log.clear()
            tile.found.rows[tile.queries], tile.found.scores[tile.queries] = ranked_rows, ranked_scores
            if not certain.all():
                again.append(_Tile(tile.found, tile.queries[~certain]))
        if again:
            self(again, guess=False, progress=None)

    def _at_once(self, blocks: Blocks, parts: Sequence[Part], products: Products, progress: Progress | None) -> None:
        for first, block in blocks:
            hidden = self._hidden(first, first + len(block))
            for part in parts:
                scores = products(part.queries, block, hidden)
                part.candidates.add(products.reaching(scores, part.candidates.cut), first)
            if progress is not None:
                progress(first + len(block))

    def _ahead(self, blocks: Blocks, parts: Sequence[Part], progress: Progress | None) -> None:
        from sept.retrieval.ahead import Ahead  # of a GPU alone

        given = Ahead(parts, self.features.skipped, self.device)
        for first, block in blocks:
            given(first, block)
            if progress is not None:
                progress(first + len(block))
        given.finish()

    def _blocks(self, queries: int) -> Blocks:
        rows = self.block_rows or rows_of_block(self.features, self.device, self.arithmetic, queries)
        if self.compact is None:
            return Blocks(self.features, self.device, self.arithmetic, rows)
        return CompactBlocks(self.compact, self.device, self.arithmetic, rows)

    def _part(self, tile: _Tile, residual: float) -> Part:
        exact = tile.found.queries[tile.queries]
        queries = torch.from_numpy(exact).to(torch.float32).to(self.device, self.arithmetic.dtype)
        return Part(queries, Candidates(self.features, exact, tile.found.depth, self.arithmetic, residual))

    def _expect(self, parts: Sequence[Part], products: Products) -> None:
        """Sets the candidates' first cut from a sample of the pool; otherwise every row would be a candidate at
        first."""
        rows = np.arange(SAMPLE_ROWS) * self.features.rows // SAMPLE_ROWS
        rows = np.setdiff1d(rows, self.features.skipped)
        sample = torch.from_numpy(self.features.take_half(rows)).to(self.device).to(self.arithmetic.dtype)
        for part in parts:
            rank = guess_rank(part.candidates.depth * len(rows) / self.features.embedded)
            if rank <= len(rows):
                scores = products(part.queries, sample, rows[:0]).float()
                part.candidates.expect(scores.topk(rank, sorted=False).values.amin(1).cpu().numpy())

    def _hidden(self, first: int, last: int) -> IntArray:
        begin, end = np.searchsorted(self.features.skipped, (first, last))
        return self.features.skipped[begin:end] - first


def guess_rank(expected: float) -> int:
    """The rank in the sample of the cutting score, if `expected` of the best are expected in the sample."""
    return max(1, int(np.ceil(expected + GUESS_SIGMAS * (np.sqrt(expected) + 1))))


def queries_per_product(device: str | torch.device) -> int:
    """How many queries are multiplied together at most."""
    return QUERIES_PER_PRODUCT if lanes.on_host(device) else QUERIES_ON_GPU


def _turns(found: Sequence[_Found], dim: int, memory: int, most: int) -> Iterator[list[_Tile]]:
    """All queries in tiles of at most `most`, in groups whose candidates fit into `memory` (one query at least)."""
    turn: list[_Tile] = []
    free = memory
    for each in found:
        size = each.depth * BYTES_PER_RANK + BYTES_PER_QUERY + 20 * dim
        start = 0
        while start < len(each.queries):
            count = min(most, len(each.queries) - start, free // size)
            if count < 1 and turn:
                yield turn
                turn, free = [], memory
                continue
            count = max(count, 1)
            turn.append(_Tile(each, np.arange(start, start + count)))
            start, free = start + count, free - count * size
    yield turn


def _part(progress: Progress | None, turn: int, turns: int, pool: int) -> Progress | None:
    """Progress of one of several scans as progress over the pool."""
    if progress is None:
        return None
    return lambda rows: progress((turn * pool + rows) // turns)


def check_queries(queries: np.ndarray, features: Features) -> None:
    """Raises ConfigError for queries of another dimension, DataError for one that is no unit vector."""
    if queries.ndim != 2 or queries.shape[1] != features.dim:
        raise ConfigError(
            f"queries of shape {queries.shape} cannot be searched in {features.files[0].parent}, whose vectors have "
            f"{features.dim} dimensions: embed both with the same retriever"
        )
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE))  # NaN is bad
    if len(bad):
        raise DataError(f"query {bad[0]} has length {norms[bad[0]]:.4g}, expected 1 ({len(bad)} such queries)")
