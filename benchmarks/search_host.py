"""What the host does in a search on a GPU, timed on this processor without one: is it done before the disk is?

    OMP_NUM_THREADS=1 python benchmarks/search_host.py [--rows 155000000] [--dim 768] [--depth 200]
        [--queries 505 1010 10000] [--pool-rows 100000]

CPU seconds of one thread, for a scan of `--rows`:

taking in     `ahead.take_in` of the hits of every product of 100,000 rows (a shard) with up to 4,096 queries, and what
              `Candidates.keep` does when they become too many. As many hits are drawn as a scan of random vectors in
              bfloat16 finds: the guess from the sample lets a share of the scores through, later twice the depth
              over the rows seen. One tile of queries is run, and multiplied with how many there are.
giving out    the Python and the dispatcher of one product: `Ahead` with one query, some rows and space for 16 hits, on
              the CPU. What CUDA's own launches take comes on top: about 50 a product, which nobody measured here.
reading       a block from the page cache into a staging buffer; four threads share it.
ranking       after the scan: candidates read again and scored in float64, from the rates of `sept.retrieval.estimate`;
              in a search all cores share it.
as it was     blocks of 8,192 rows, whose hits the host places, counts in bins and cuts for each tile of each block.
"""

import argparse
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from sept.retrieval import ahead
from sept.retrieval import estimate as estimate_module
from sept.retrieval.ahead import Ahead, take_in
from sept.retrieval.candidates import Candidates, Part, exact_queries
from sept.retrieval.embedding import ROWS_PER_SHARD, embed
from sept.retrieval.estimate import KEPT_SHARE, estimate, measure
from sept.retrieval.features import Features
from sept.retrieval.index import QUERIES_ON_GPU, QUERIES_PER_PRODUCT, SAMPLE_ROWS, guess_rank
from sept.retrieval.scan import BLOCK_ROWS, Arithmetic, Hits

KEPT = KEPT_SHARE[torch.bfloat16]
MILLION = 1_000_000
PRODUCTS = 300  # given out to time one


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def unit(seed: int, rows: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def store(folder: Path, rows: int, dim: int) -> Features:
    embed(folder, rows, lambda first, last: (unit(first, last - first, dim), []), 0.0)
    return Features.open(folder)


class Drawn:
    """Hits of a scan: of `rows` scores of a query, the best `share`; and the edge that `depth` of those seen reach."""

    def __init__(self, depth: int, pool: int, queries: int) -> None:
        self.depth, self.queries, self.seen = depth, queries, 0
        self.guess = guess_rank(depth * SAMPLE_ROWS / pool) / SAMPLE_ROWS
        self.rng = np.random.default_rng(0)

    @property
    def share(self) -> float:
        """Of the scores that reach the cut."""
        return KEPT * min(self.guess, self.depth / max(self.seen, 1))

    def edges(self) -> np.ndarray:
        return np.full(self.queries, self._score(np.array(self.share)))

    def hits(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Places (h,) int64 among (queries, rows), ascending, and scores (h,) float32."""
        share, scores = self.share, self.queries * rows
        found = self.rng.poisson(share * scores)
        self.seen += rows
        place = np.unique(self.rng.integers(0, scores, found))
        return place, self._score(self.rng.uniform(0, share, len(place))).astype(np.float32)

    @staticmethod
    def _score(share: np.ndarray) -> np.ndarray:
        """Higher, the fewer are as high."""
        return 0.5 - 0.4 * share**0.25


def taking_in(candidates: Candidates, drawn: Drawn, rows: int) -> float:
    """One tile, as it is: the GPU has placed and counted the hits."""
    candidates.counted = drawn
    spent = 0.0
    for first in range(0, rows, ROWS_PER_SHARD):
        count = min(ROWS_PER_SHARD, rows - first)
        place, score = drawn.hits(count)
        query, column = np.divmod(place, count)
        fetched = query.astype(np.int16), column.astype(np.int32), score
        start = time.thread_time()
        take_in(candidates, first, *fetched)
        spent += time.thread_time() - start
    return spent


def as_it_was(candidates: Candidates, drawn: Drawn, rows: int) -> float:
    """One tile, with the work that the host did for every block of 8,192 rows."""
    spent = 0.0
    for first in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - first)
        place, score = drawn.hits(count)
        start = time.thread_time()
        candidates.add(Hits.at(place, score, (drawn.queries, count)), first)
        candidates.cut  # noqa: B018
        spent += time.thread_time() - start
    return spent


def giving_out(features: Features) -> float:
    """CPU seconds of one product."""
    ahead.SPACE = 16  # next to nothing to compute
    queries = exact_queries(unit(0, 1, features.dim))
    part = Part(torch.from_numpy(queries).float(), Candidates(features, queries, 5, Arithmetic(), 0.0))
    given, block = Ahead([part], np.array([5]), "cpu"), torch.from_numpy(features.take(np.arange(8)))
    part.candidates.floor[:] = 2.0  # nothing reaches the cut
    given.counted[0].raise_floor()
    given(0, block)
    start = time.thread_time()
    for _ in range(PRODUCTS):
        given(0, block)
    return (time.thread_time() - start) / PRODUCTS


def reading(features: Features) -> float:
    """CPU seconds a row."""
    block = np.empty((features.shards[0].rows, features.dim), dtype=np.float16)
    features.read(0, block)
    start = time.thread_time()
    for shard in features.shards:
        features.read(shard.first_row, block[: shard.rows])
    return (time.thread_time() - start) / features.rows


def report(count: int, features: Features, options: argparse.Namespace) -> None:
    spent, tiles = [], 0
    for way, most in ((as_it_was, QUERIES_PER_PRODUCT), (taking_in, QUERIES_ON_GPU)):
        tiles = -(-count // most)
        queries = exact_queries(unit(1, -(-count // tiles), features.dim))
        candidates = Candidates(features, queries, options.depth, Arithmetic(), 0.0)
        spent.append(tiles * way(candidates, Drawn(options.depth, options.rows, len(queries)), options.rows))
    products = tiles * -(-options.rows // ROWS_PER_SHARD)
    rates = replace(options.rates, bandwidth=np.inf, flops=np.inf, kept=KEPT)
    ranking = estimate(options.rows, features.dim, count, options.depth, rates)
    was, taking = (f"{each:7.1f} ({MILLION * each / options.rows:.3f} a million rows)" for each in spent)
    given = products * options.given
    print(f"{count:>6,} queries  {taking}  {given:7.1f} ({products:,} products)  {ranking:7.1f}  {was}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"rows": 155_000_000, "dim": 768, "depth": 200, "pool-rows": 100_000}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--queries", type=int, nargs="+", default=[505, 1010, 10_000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}; torch {torch.__version__}, one thread; CPU seconds for {options.rows:,} rows")
    with tempfile.TemporaryDirectory() as folder:
        features = store(Path(folder), options.pool_rows, options.dim)
        options.given = giving_out(features)
        estimate_module.time = SimpleNamespace(perf_counter=time.thread_time)  # CPU seconds there, too
        options.rates, per_row = measure(features, unit(1, QUERIES_PER_PRODUCT, features.dim)), reading(features)
        print(f"reading from the page cache: {per_row * options.rows:.1f} s, {per_row * MILLION:.3f} a million rows")
        print(f"giving out one product: {1e6 * options.given:.0f} us")
        print(f"{'':14}  {'taking in':31}  {'giving out':24}  {'ranking':>7}  {'taking in, as it was'}")
        for count in options.queries:
            report(count, features, options)


if __name__ == "__main__":
    main()
