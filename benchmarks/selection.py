"""Times Algorithm 1 and the exact search at sizes of the paper's tasks.

    python benchmarks/selection.py [--threads 2] [--device cpu]

`round_robin`: 5,000 queries (a 1,000-class task at 5 shots) and a depth of 1,000, to a budget of 1M images.
`search`: 505 queries (Food101 at 5 shots) to a depth of 1,000 in 200,000 vectors of the retriever's 768 dimensions.
(Not called `select.py`: a script's folder comes first on Python's path, and the standard library has that name.)
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sept.retrieval.embedding import embed
from sept.retrieval.features import Features
from sept.retrieval.index import search
from sept.retrieval.select import random_subset, round_robin
from sept.retrieval.shards import Skip

LISTS, BUDGET, POOL = (5_000, 1_000), 1_000_000, 4_000_000
QUERIES, ROWS, DIM, DEPTH, PER_SHARD = 505, 200_000, 768, 1_000, 50_000
REPEATS = 3


def encode(first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
    """Random directions, the same for the same rows."""
    vectors = np.random.default_rng(first).standard_normal((last - first, DIM), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), []


def best_of(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few runs."""
    walls = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        walls.append(time.perf_counter() - start)
    return min(walls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    lists = np.random.default_rng(0).integers(0, POOL, LISTS)
    wall_s = best_of(lambda: round_robin(lists, BUDGET))
    print(f"round_robin    {LISTS[0]:,} queries x {LISTS[1]:,} -> {BUDGET:,}    {wall_s:7.2f} s")
    wall_s = best_of(lambda: random_subset(POOL, BUDGET, seed=0))
    print(f"random_subset  {POOL:,} rows -> {BUDGET:,}        {wall_s:7.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        embed(Path(folder), ROWS, encode, 0.0, PER_SHARD)
        features, queries = Features.open(Path(folder)), encode(ROWS, ROWS + QUERIES)[0]
        wall_s = best_of(lambda: search(queries, features, DEPTH, device=options.device))
        rate = 2 * QUERIES * ROWS * DIM / wall_s / 1e9
        print(
            f"search         {QUERIES} queries in {ROWS:,} x {DIM}, top {DEPTH:,}  {wall_s:7.2f} s  {rate:.0f} GFLOP/s"
        )
        wall_s = best_of(features.verify)
        print(f"verify         {ROWS:,} x {DIM}                     {wall_s:7.2f} s")


if __name__ == "__main__":
    main()
