"""Exact search and Algorithm 1 at sizes of the paper's tasks, beside faiss and the bare product, in one run.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/retrieval.py [--threads 2] [--rows 1000000] [--flat-rows 200000]
        [--dim 768] [--queries 505] [--many-queries 5000] [--depths 200 2000 10000] [--repeats 3] [--growth]

Every figure is the median of `--repeats` runs that take turns, so that another process on the machine disturbs all
sides alike. CPU seconds are given beside the wall's: on a shared machine they are the steadier figure.
`int8`: the scan of the int8 copy. `GEMM`: the float32 products of the scan alone, on a block in memory. Peers: faiss's
streamed exact search (`knn_ground_truth`) over the same files, and its flat index on the same vectors in memory.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import torch
from faiss.contrib.exhaustive_search import knn_ground_truth

from sept.retrieval.compact import Compact, build
from sept.retrieval.embedding import embed
from sept.retrieval.estimate import estimate, measure
from sept.retrieval.features import Features
from sept.retrieval.index import search
from sept.retrieval.scan import arithmetic
from sept.retrieval.select import round_robin
from sept.retrieval.shards import Skip

LISTS, BUDGET, POOL = (5_000, 1_000), 1_000_000, 4_000_000
GEMM_ROWS, PEER_ROWS = 8_192, 65_536
MIB = 2**20

Work = dict[str, Callable[[], object]]


def unit(seed: int, rows: int, dim: int) -> np.ndarray:
    """Random directions, the hardest case: no score stands out."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def store(folder: Path, rows: int, dim: int) -> Features:
    def encode(first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
        return unit(first, last - first, dim), []

    embed(folder, rows, encode, 0.0)
    return Features.open(folder)


def medians(work: Work, repeats: int) -> dict[str, tuple[float, float]]:
    """Median wall and CPU seconds of each, taking turns."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, run in work.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            seen[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: tuple(np.median(times, axis=0).tolist()) for name, times in seen.items()}


def gemm(queries: np.ndarray, rows: int) -> Callable[[], object]:
    left, right = torch.from_numpy(queries), torch.randn(GEMM_ROWS, queries.shape[1])
    out = torch.empty(len(queries), GEMM_ROWS)

    def run() -> None:
        for start in range(0, rows, GEMM_ROWS):
            here = min(GEMM_ROWS, rows - start)
            torch.mm(left, right[:here].T, out=out[:, :here])

    return run


def blocks(features: Features) -> Iterator[np.ndarray]:
    for _, half in features.blocks(PEER_ROWS):
        yield torch.from_numpy(half).float().numpy()


def line(name: str, measured: dict[str, tuple[float, float]], note: str = "") -> None:
    times = "  ".join(f"{what} {wall:6.2f} s (CPU {cpu:6.2f})" for what, (wall, cpu) in measured.items())
    print(f"{name:34} {times}  {note}", flush=True)


def ratio(measured: dict[str, tuple[float, float]], over: str, under: str) -> str:
    wall, cpu = (a / b for a, b in zip(measured[over], measured[under], strict=True))
    return f"{over}/{under} {wall:.2f} (CPU {cpu:.2f})"


def peak(folder: Path, queries: np.ndarray, depth: int, threads: int, out: "multiprocessing.Queue[int]") -> None:
    """In a process of its own: the memory that it and the search add up to."""
    torch.set_num_threads(threads)
    search(queries, Features.open(folder), depth)
    status = Path("/proc/self/status").read_text()  # getrusage would give the parent's peak where that is higher
    kilobytes = status.partition("VmHWM:")[2].split()[0]
    out.put(1024 * int(kilobytes))


def peak_memory(folder: Path, queries: np.ndarray, depth: int, threads: int) -> int:
    context = multiprocessing.get_context("spawn")
    out: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=peak, args=(folder, queries, depth, threads, out))
    process.start()
    found = out.get()
    process.join()
    return found


def streamed(features: Features, folder: Path, options: argparse.Namespace) -> None:
    """On disk: against the streamed peer and the bare product, and against the estimate."""
    queries = unit(-1 % 2**32, options.queries, features.dim)
    build(folder.parent / "int8", features)
    compact = Compact.open(folder.parent / "int8", features)
    for depth in options.depths:
        work: Work = {
            "sept": lambda depth=depth: search(queries, features, depth),
            "int8": lambda depth=depth: search(queries, features, depth, compact=compact),
            "GEMM": gemm(queries, features.rows),
            "knn_ground_truth": lambda depth=depth: knn_ground_truth(
                queries, blocks(features), depth, faiss.METRIC_INNER_PRODUCT
            ),
        }
        rates = measure(features, queries)
        measured = medians(work, options.repeats)
        expected = estimate(features.rows, features.dim, len(queries), depth, rates)
        memory = peak_memory(folder, queries, depth, options.threads)
        notes = [ratio(measured, "GEMM", "sept"), ratio(measured, "knn_ground_truth", "sept")]
        notes += [f"estimate {expected:.2f} s", f"peak {memory / MIB:.0f} MiB"]
        line(f"{features.rows:,} on disk, depth {depth:,}", measured, "; ".join(notes))


def in_memory(features: Features, options: argparse.Namespace) -> None:
    """Vectors that faiss holds in memory as float32, and we read from the page cache."""
    flat = faiss.IndexFlatIP(features.dim)
    for block in blocks(features):
        flat.add(block)
    for count in (options.queries, options.many_queries):
        queries = unit(7, count, features.dim)
        for depth in options.depths[:2]:
            measured = medians(
                {
                    "sept": lambda depth=depth, queries=queries: search(queries, features, depth),
                    "flat": lambda depth=depth, queries=queries: flat.search(queries, depth),
                },
                options.repeats,
            )
            line(f"{features.rows:,}, {count:,} queries, depth {depth:,}", measured, ratio(measured, "flat", "sept"))


def growth(features: Features, options: argparse.Namespace) -> None:
    """A quarter, a half, all and twice the pool (its union with itself)."""
    queries, depth = unit(9, options.queries, features.dim), options.depths[0]
    quarter = len(features.shards) // 4
    pools = [
        replace(features, files=features.files[:n], shards=features.shards[:n], rows=features.shards[n - 1].last_row)
        for n in (quarter, 2 * quarter)
    ] + [features, Features.concatenate([features, features])]
    for pool in pools:
        measured = medians({"sept": lambda pool=pool: search(queries, pool, depth)}, options.repeats)
        wall, cpu = measured["sept"]
        line(
            f"{pool.rows:,} rows",
            measured,
            f"{1e6 * wall / pool.rows:.2f} s (CPU {1e6 * cpu / pool.rows:.2f}) a million",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"threads": 2, "rows": 1_000_000, "flat-rows": 200_000, "dim": 768}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in {"queries": 505, "many-queries": 5_000, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--depths", type=int, nargs="+", default=[200, 2_000, 10_000])
    parser.add_argument("--growth", action="store_true", help="also a quarter, a half and twice the pool")
    parser.add_argument("--folder", type=Path, help="where the vectors are, or are written to be used again")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    print(f"{options.threads} threads, products in {arithmetic('cpu').dtype}, {options.repeats} repeats")
    lists = np.random.default_rng(0).integers(0, POOL, LISTS)
    line("Algorithm 1, 5,000 x 1,000 to 1M", medians({"sept": lambda: round_robin(lists, BUDGET)}, options.repeats))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        features = store(folder / "pool", options.rows, options.dim)
        streamed(features, folder / "pool", options)
        if options.growth:
            growth(features, options)
        in_memory(store(folder / "flat", options.flat_rows, options.dim), options)


if __name__ == "__main__":
    main()
