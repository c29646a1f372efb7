"""Times searches of a pool for several numbers of queries, next to the prediction of `sept.retrieval.estimate`."""

import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from sept.gpu.card import Card
from sept.gpu.equality import unit
from sept.gpu.report import Result, format_value
from sept.gpu.runner import Check
from sept.retrieval.embedding import embed
from sept.retrieval.estimate import STORED_BYTES, estimate, measure
from sept.retrieval.features import Features
from sept.retrieval.index import search

QUERIES = (505, 1_010, 10_000)
FEWER = 20  # times fewer rows on a slow simulated device
ROWS, SHARD, DIM, DEPTH = 1_000_000, 100_000, 768, 200
MICRO_ROWS, MICRO_SHARD, MICRO_DIM, MICRO_DEPTH = 20_000, 5_000, 32, 10
POOL, MILLION = 155_000_000, 1e6  # rows of the paper's pool
SHARE_OF_DISK = 0.25  # of the free space, for the vectors
REPEATS = 3
PARTS = 2
APART = 7  # columns by which a shard's vectors are rotated relative to the previous shard's


def pool(card: Card) -> Features:
    """Random vectors, as many as fit; made once. Each shard has those of the first with rotated columns."""
    if "pool" not in card.kept:
        shard, dim = card.size(SHARD, MICRO_SHARD), card.size(DIM, MICRO_DIM)
        room = int(SHARE_OF_DISK * shutil.disk_usage(card.folder).free) // (shard * dim * STORED_BYTES)
        shards = max(PARTS, min(card.size(ROWS, MICRO_ROWS) // shard, room))
        drawn = unit(np.random.default_rng(0), shard, dim)

        def rows(first: int, last: int) -> tuple[np.ndarray, list]:
            return np.roll(drawn, APART * first // shard, axis=1), []

        folder: Path = card.folder / "pool"
        embed(folder, shards * shard, rows, 0.0, shard)
        card.kept["pool"] = Features.open(folder)
    features: Features = card.kept["pool"]
    return features


def scan(card: Card, count: int) -> list[Result]:
    """Times a whole pool and a part of it: the difference gives the cost per row, the rest is constant."""
    features, depth, count = pool(card), card.size(DEPTH, MICRO_DEPTH), card.size(count, count // FEWER)
    _, part = features.part(0, PARTS)
    queries = unit(np.random.default_rng(1), count, features.dim)
    with card.on():
        search(queries, part, depth, "cuda")
        whole, less = (_seconds(card, queries, each, depth) for each in (features, part))
        rates = measure(features, queries, "cuda")
    row = max(0.0, (whole - less) / (features.rows - part.rows))
    predicted, far = (estimate(rows, features.dim, count, depth, rates, card.real) for rows in (features.rows, POOL))
    name, sizes = f"scan for {count:,} queries", f"{features.rows:,} rows of {features.dim}, lists of {depth}"
    far_name = f"{name}, {POOL:,} rows"
    extrapolated = Result(
        far_name,
        True,
        whole + (POOL - features.rows) * row,
        text=f"extrapolated; {format_value(far)} s by the estimate; from the page cache, a disk may be slower",
        unit="s",
    )
    if not card.real:
        extrapolated = Result(far_name, None, text="no card: nothing to extrapolate from")
    return [
        Result(name, True, whole, text=f"{sizes}; {format_value(predicted)} s by the estimate", unit="s"),
        Result(
            f"{name}, a million rows", True, MILLION * row, text="from the difference to half of the rows", unit="s"
        ),
        extrapolated,
    ]


def _seconds(card: Card, queries: np.ndarray, features: Features, depth: int) -> float:
    times = []
    for _ in range(card.size(REPEATS, 1)):
        start = time.perf_counter()
        search(queries, features, depth, "cuda")
        times.append(time.perf_counter() - start)
    return median(times)


CHECKS: Mapping[str, Check] = {f"scan for {count:,} queries": partial(scan, count=count) for count in QUERIES}
