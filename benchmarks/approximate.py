"""What an approximate index costs and keeps against the exact scan, at the paper's share of probed cells.

    python benchmarks/approximate.py [--rows 200000] [--dim 128] [--queries 505] [--budget 10000] [--threads 1]
        [--nlist 16384] [--nprobe 256 1024] [--device cpu] [--milvus]

Two pools of unit vectors: `clustered` around 1,000 random centres, and `manifold`, the image of 12 random coordinates
under a random two-layer network, which is what features of real images look like to k-means. The queries come from a
small region of each, as a task's images do. `kept` is the share of Algorithm 1's set, `recall` that of the exact lists
at the depth it needs. `total` is training, adding and searching: what one task pays; further tasks pay the search.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from sept.retrieval.approximate import Index, ivf, milvus, recall
from sept.retrieval.embedding import embed
from sept.retrieval.features import Features
from sept.retrieval.index import search
from sept.retrieval.select import Ranked, select
from sept.retrieval.selections import Selection

CENTRES, TASK_CENTRES, SPREAD = 1_000, 100, 0.7
LATENT, HIDDEN, TASK_SPREAD = 12, 256, 0.5
PER_SHARD, BLOCK = 50_000, 10_000


def normed(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(seed: int, count: int, dim: int, task: bool) -> np.ndarray:
    """(count, dim): centres plus noise of a length of `SPREAD`; a task sees the first few centres alone."""
    centres = normed(np.random.default_rng(0).standard_normal((CENTRES, dim)))
    rng = np.random.default_rng([1, seed])
    noise = rng.standard_normal((count, dim)) * (SPREAD / dim**0.5)
    return normed(centres[rng.integers(0, TASK_CENTRES if task else CENTRES, count)] + noise)


def manifold(seed: int, count: int, dim: int, task: bool) -> np.ndarray:
    """(count, dim): a random network's outputs; a task's latent coordinates lie about one point."""
    fixed = np.random.default_rng(2)
    first = fixed.standard_normal((LATENT, HIDDEN)) / LATENT**0.5
    second = fixed.standard_normal((HIDDEN, dim)) / HIDDEN**0.5
    latent = np.random.default_rng([3, seed]).standard_normal((count, LATENT))
    if task:
        latent = fixed.standard_normal(LATENT) + TASK_SPREAD * latent
    return normed(np.tanh(2 * latent @ first) @ second)


@contextmanager
def clock(walls: list[float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    walls.append(time.perf_counter() - start)


def timed(lists: Callable[[int], Ranked], queries: int, budget: int, available: int) -> tuple[Selection, Ranked, float]:
    """Algorithm 1's selection from an index, the deepest lists that it took, and the seconds of all searches."""
    seen, walls = [], []

    def to_depth(depth: int) -> Ranked:
        with clock(walls):
            seen.append(lists(depth))
        return seen[-1]

    return select(to_depth, queries, budget, available), seen[-1], sum(walls)


def line(name: str, build_s: float, search_s: float, exact_s: float, quality: str) -> None:
    total = build_s + search_s
    print(f"  {name:<28}{build_s:>9.1f}{search_s:>10.1f}{total:>9.1f}{total / exact_s:>10.1f}x   {quality}", flush=True)


def measure(kind: str, folder: Path, options: argparse.Namespace) -> None:
    draw = {"clustered": clustered, "manifold": manifold}[kind]

    def encode(first: int, last: int) -> tuple[np.ndarray, list]:
        starts = range(first, last, BLOCK)
        return np.concatenate([draw(start, min(BLOCK, last - start), options.dim, False) for start in starts]), []

    embed(folder / "features", options.rows, encode, 0.0, PER_SHARD)
    features = Features.open(folder / "features")
    queries = draw(-1 % 2**32, options.queries, options.dim, True)
    counts = (len(queries), options.budget, features.embedded)
    wanted, lists, exact_s = timed(lambda depth: search(queries, features, depth, options.device), *counts)
    sizes = f"{options.rows:,} x {options.dim}, {len(queries)} queries, {options.budget:,} images"
    print(f"{kind}: {sizes}, depth {wanted.depth}")
    print(f"  {'':<28}{'build s':>9}{'search s':>10}{'total s':>9}{'of exact':>11}   recall    kept")
    line("exact", 0.0, exact_s, exact_s, f"{1:>6.1%}  {1:>6.1%}")

    def tried(name: str, index: Index, build_s: float) -> None:
        found, ours, search_s = timed(lambda depth: index.search(queries, depth), *counts)
        kept = len(np.intersect1d(found.rows, wanted.rows)) / options.budget
        line(name, build_s, search_s, exact_s, f"{recall(ours, lists, wanted.depth):>6.1%}  {kept:>6.1%}")

    walls: list[float] = []
    with clock(walls):
        facts = ivf.build(folder / "ivf", features, options.nlist, seed=0, device=options.device)
    for nprobe in options.nprobe:
        index = ivf.open_ivf(folder / "ivf", features, nprobe, options.device)
        tried(f"ivf_sq8, {index.probes} of {facts['cells']} cells", index, walls[0])
    if options.milvus:
        with clock(walls):
            facts = milvus.build(folder / "milvus", features, options.nlist)
        for nprobe in options.nprobe:
            with milvus.open_milvus(folder / "milvus", features, nprobe) as opened:
                tried(f"milvus lite, {opened.probes} of {facts['cells']} cells", opened, walls[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rows", 200_000), ("dim", 128), ("queries", 505), ("budget", 10_000), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--nlist", type=int, default=16_384)
    parser.add_argument("--nprobe", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--milvus", action="store_true", help="Milvus Lite too, which is slow to fill")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for kind in ("clustered", "manifold"):
        with tempfile.TemporaryDirectory() as folder:
            measure(kind, Path(folder), options)


if __name__ == "__main__":
    main()
