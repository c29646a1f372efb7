"""How long a search takes, from what the machine was seen to do.

Reads a feature store for a moment, gives rates; from rates and sizes it gives seconds, for any pool.
Shapes: Q queries, N pool rows, D dim.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from sept.retrieval.candidates import Candidates, radix_argsort
from sept.retrieval.exact import ExactScores, exact_queries
from sept.retrieval.features import Features
from sept.retrieval.index import SAMPLE_ROWS, SAMPLED_POOL
from sept.retrieval.scan import BLOCK_ROWS, Arithmetic, Blocks, Products, arithmetic

STORED_BYTES = 2  # a component, as float16
TRIED_BLOCKS, TRIED_PAIRS = 5, 50_000
CUT_SHARE = 0.01  # of the scores, kept in the trial
KEPT_SHARE = {torch.float32: 1.1, torch.bfloat16: 2.4}  # candidates for each row of a list, seen on random vectors


@dataclass(frozen=True)
class Rates:
    """bandwidth: stored bytes made ready for the product a second. flops: of the product, its scores filtered. ranks:
    rows of the lists a second, told apart from the other candidates and put in order."""

    bandwidth: float
    flops: float
    ranks: float


def estimate(
    rows: int,
    dim: int,
    queries: int,
    bandwidth: float,
    flops: float,
    depth: int = 0,
    ranks: float = np.inf,
    overlapped: bool = False,
) -> float:
    """Seconds of one scan of `rows` x `dim` for `queries`, and of ranking them to `depth`.

    overlapped: reading costs the processor nothing, as with a GPU fed from a disk; else the times add up.
    """
    scanned = rows + SAMPLE_ROWS if rows >= SAMPLED_POOL * SAMPLE_ROWS else rows
    reading = scanned * dim * STORED_BYTES / bandwidth
    multiplying = 2.0 * scanned * dim * queries / flops
    scan = max(reading, multiplying) if overlapped else reading + multiplying
    return scan + queries * min(depth, rows) / ranks


def measure(features: Features, queries: np.ndarray, device: str | torch.device = "cpu") -> Rates:
    """The rates of this machine, from some blocks of this pool and these queries (Q, D); takes about a second."""
    numbers = arithmetic(device)
    blocks = Blocks(features, device, numbers, BLOCK_ROWS)
    exact = exact_queries(queries)
    reading, multiplying, rows = [], [], 0
    start = time.perf_counter()
    for tried, (_, block) in enumerate(blocks):
        _wait(device)
        reading.append((time.perf_counter() - start) / len(block))
        multiplying.append(_product_seconds(features, exact, block, numbers) / len(block))
        rows = len(block)
        if tried + 1 == TRIED_BLOCKS:
            break
        start = time.perf_counter()
    stored = features.dim * STORED_BYTES
    multiplied = 2 * features.dim * len(exact)
    ranks = 1 / (KEPT_SHARE[numbers.dtype] * _pair_seconds(features, exact, rows))
    return Rates(stored / float(np.median(reading)), multiplied / float(np.median(multiplying)), ranks)


def _pair_seconds(features: Features, exact: np.ndarray, rows: int) -> float:
    """To score a candidate exactly, and to order it by its row, its query and its score."""
    query, row = np.divmod(np.arange(min(TRIED_PAIRS, len(exact) * rows)), rows)
    start = time.perf_counter()
    order = radix_argsort(row)
    scores = ExactScores(features, exact)(query[order], row[order])
    by_query = radix_argsort(query[order])
    np.argsort(-scores[by_query])
    return (time.perf_counter() - start) / len(row)


def _product_seconds(features: Features, exact: np.ndarray, block: torch.Tensor, numbers: Arithmetic) -> float:
    queries = torch.from_numpy(exact).to(torch.float32).to(block.device, block.dtype)
    candidates, products = Candidates(features, exact, 1, numbers, 0.0), Products()
    cut = torch.full((len(queries),), 1.0 - CUT_SHARE)
    products.reaching(products(queries, block, np.empty(0, dtype=np.int64)), cut)
    start = time.perf_counter()
    candidates.add(products.reaching(products(queries, block, np.empty(0, dtype=np.int64)), cut), 0)
    return time.perf_counter() - start


def _wait(device: str | torch.device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
