"""What unreadable images cost an embedding beside their reading: all shards of a pool, with and without any.

python -m benchmarks.unreadable [SHARDS]
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sept.retrieval.embedding import embed
from sept.retrieval.shards import Skip

ROWS, DIM = 100, 64  # of a shard
SHARE = 0.01  # of images that are unreadable
ALLOWED = 0.05
ROUNDS = 3


def encode(share: float, first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
    vectors = np.full((last - first, DIM), DIM**-0.5, dtype=np.float32)
    skipped = [row for row in range(first, last) if share and row % round(1 / share) == 0]
    vectors[[row - first for row in skipped]] = 0
    return vectors, [Skip(row, f"{row}.jpg", "truncated") for row in skipped]


def took(share: float, shards: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        since = time.process_time()
        embed(Path(folder) / "features", ROWS * shards, lambda *span: encode(share, *span), ALLOWED, ROWS)
        return time.process_time() - since


def main() -> None:
    shards = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    none, some = (min(took(share, shards) for _ in range(ROUNDS)) for share in (0, SHARE))
    print(f"{shards} shards of {ROWS} images: CPU seconds {none:.2f} if all are readable, {some:.2f} without 1 %")


if __name__ == "__main__":
    main()
