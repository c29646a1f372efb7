"""The time of `advise=true` on an embedded pool: python benchmarks/advice.py FOLDER --shots 500

Writes synthetic features of clusters below FOLDER, to be removed by hand, and prints seconds and the peak memory.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from sept.retrieval.advice import measure
from sept.retrieval.embedding import embed
from sept.retrieval.features import Features
from sept.retrieval.shards import Skip

KINDS, SPREAD = 1_000, 0.7


def drawn(seed: int, rows: int, dim: int) -> np.ndarray:
    """Unit vectors (rows, dim) float32 around KINDS middles."""
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(0).standard_normal((KINDS, dim), dtype=np.float32)
    vectors = middles[rng.integers(0, KINDS, rows)] + SPREAD * rng.standard_normal((rows, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, default in (("rows", 1_000_000), ("dim", 384), ("shots", 500), ("budget", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    o = parser.parse_args()

    def encode(first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
        return drawn(first + 1, last - first, o.dim), []

    if not (o.folder / "features.json").exists():
        embed(o.folder, o.rows, encode, 0.0)
    features, shots = Features.open(o.folder), drawn(-1 % 2**32, o.shots, o.dim)
    since = time.perf_counter()
    measure(features, shots, [str(i // 5) for i in range(o.shots)], o.budget)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{o.rows:,} rows of {o.dim}, {o.shots} shots: {time.perf_counter() - since:.1f} s, {peak:.1f} GiB at most")


if __name__ == "__main__":
    main()
