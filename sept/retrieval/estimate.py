"""Estimates how long a search takes, from rates measured on this machine.

Measures rates on a few blocks of a feature store; computes seconds from rates and sizes, for any pool.
Shapes: Q queries, N pool rows, D dim.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from sept.retrieval import lanes
from sept.retrieval.ahead import Ahead
from sept.retrieval.candidates import Candidates, ExactScores, Part, exact_queries, radix_argsort
from sept.retrieval.features import Features
from sept.retrieval.index import SAMPLE_ROWS, SAMPLED_POOL, queries_per_product
from sept.retrieval.scan import BLOCK_ROWS, Arithmetic, Blocks, Products, arithmetic, rows_of_block

STORED_BYTES = 2  # per component, as float16
TRIED_BLOCKS, TRIED_PAIRS, TRIED_ROWS = 5, 50_000, 4_000
APART = 5  # every fifth row is timed: gathered rows are scattered
CUT_SHARE = 0.01  # of the scores, kept in the trial
HIT_SHARE = 2e-4  # of the scores, collected from a GPU in the trial: what a guessed cut of a large pool lets through
TRIED_READS, TRIED_PRODUCTS = 16, 8  # on a GPU: blocks, so that the readers run in step; products
KEPT_SHARE = {torch.float32: 1.1, torch.bfloat16: 2.1}  # candidates per row of a list, measured on random vectors


@dataclass(frozen=True)
class Rates:
    """Per second, except `kept`. bandwidth: stored bytes read and converted for the product. flops: of the product,
    including filtering. gathered: scattered rows reread as float64. pairs: exactly scored and sorted. kept: pairs per
    row of a list. taken: scores whose GPU hits the host collects; on a CPU that is part of `flops`."""

    bandwidth: float
    flops: float
    gathered: float = np.inf
    pairs: float = np.inf
    kept: float = 1.0
    taken: float = np.inf


def estimate(rows: int, dim: int, queries: int, depth: int, rates: Rates, overlapped: bool = False) -> float:
    """Seconds of one scan of `rows` x `dim` for `queries`, and of ranking them to `depth`.

    overlapped: reading and copying, multiplying, and collecting hits overlap, as with a GPU fed from a disk; else the
    times add up. Ranking comes after the scan.
    """
    sample = SAMPLE_ROWS if rows >= SAMPLED_POOL * SAMPLE_ROWS else 0
    reading = rows * dim * STORED_BYTES / rates.bandwidth
    multiplying = 2.0 * (rows + sample) * dim * queries / rates.flops
    taking = float(rows) * queries / rates.taken
    scan = max(reading, multiplying, taking) if overlapped else reading + multiplying + taking
    pairs = rates.kept * queries * min(depth, rows)
    gathered = sample + rows * -np.expm1(-pairs / rows)  # distinct rows of so many drawn
    return float(scan + gathered / rates.gathered + pairs / rates.pairs)


def measure(features: Features, queries: np.ndarray, device: str | torch.device = "cpu") -> Rates:
    """The rates of this machine, measured on some blocks of this pool and these queries (Q, D); takes about a
    second."""
    numbers, exact = arithmetic(device), exact_queries(queries)
    scanning = _on_cpu if lanes.on_host(device) else _on_gpu
    reading, multiplying, taking, rows = scanning(features, exact, device, numbers)
    stored, multiplied = features.dim * STORED_BYTES, 2 * features.dim * len(exact)
    return Rates(
        stored / reading,
        multiplied / multiplying,
        1 / _row_seconds(features),
        1 / _pair_seconds(features, exact, rows),
        KEPT_SHARE[numbers.dtype],
        len(exact) / taking if taking else np.inf,
    )


Seconds = tuple[float, float, float, int]  # per row: to read, to multiply, to collect hits; rows per block


def _on_cpu(features: Features, exact: np.ndarray, device: str | torch.device, numbers: Arithmetic) -> Seconds:
    reading, multiplying, rows = [], [], 0
    start = time.perf_counter()
    for tried, (_, block) in enumerate(Blocks(features, device, numbers, BLOCK_ROWS)):
        reading.append((time.perf_counter() - start) / len(block))
        multiplying.append(_product_seconds(features, exact, block, numbers) / len(block))
        rows = len(block)
        if tried + 1 == TRIED_BLOCKS:
            break
        start = time.perf_counter()
    return float(np.median(reading)), float(np.median(multiplying)), 0.0, rows


def _on_gpu(features: Features, exact: np.ndarray, device: str | torch.device, numbers: Arithmetic) -> Seconds:
    """Reading is timed over consecutive blocks, as what was prefetched before the first would count as nothing."""
    most = rows_of_block(features, device, numbers, min(len(exact), queries_per_product(device)))
    done, start = 0, time.perf_counter()
    for tried, (_, block) in enumerate(Blocks(features, device, numbers, most)):
        done += len(block)
        if tried + 1 == TRIED_READS:
            break
    _wait(device)
    reading = (time.perf_counter() - start) / done
    given = Ahead(
        _trial(features, exact, block, numbers, queries_per_product(device)), np.empty(0, dtype=np.int64), device
    )
    given(0, block)
    _wait(device)
    start, busy = time.perf_counter(), time.thread_time()
    for _ in range(TRIED_PRODUCTS):
        given(0, block)
    given.finish()
    busy = time.thread_time() - busy  # a host that waits for the GPU is not busy
    _wait(device)
    rows = len(block) * TRIED_PRODUCTS
    return reading, (time.perf_counter() - start) / rows, busy / rows, len(block)


def _trial(features: Features, exact: np.ndarray, block: torch.Tensor, numbers: Arithmetic, most: int) -> list[Part]:
    """The queries in tiles of at most `most`; HIT_SHARE of their scores with the block reach the cut, which stays."""
    parts = []
    for start in range(0, len(exact), most):
        tile = exact[start : start + most]
        queries = torch.from_numpy(tile).to(torch.float32).to(block.device, block.dtype)
        candidates = Candidates(features, tile, features.rows * TRIED_PRODUCTS, numbers, 0.0)
        best = Products()(queries, block, np.empty(0, dtype=np.int64)).float()
        best = best.topk(max(1, round(HIT_SHARE * len(block))), sorted=False).values.amin(1)
        candidates.expect(best.double().cpu().numpy())
        parts.append(Part(queries, candidates))
    return parts


def _row_seconds(features: Features) -> float:
    """To read one of some scattered rows and make it float64; the median of a few tries, each of other rows."""
    seconds = []
    for first in range(APART):
        rows = np.arange(first, min(APART * TRIED_ROWS, features.rows), APART)
        start = time.perf_counter()
        torch.from_numpy(features.take_half(rows)).double()
        seconds.append((time.perf_counter() - start) / max(1, len(rows)))
    return float(np.median(seconds))


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
