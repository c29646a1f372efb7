"""The pool images to pre-train on: those like the task (`similar`), at random, or a whole source of the pool."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sept.data.images import ImageError
from sept.data.pool import ConcatPool
from sept.errors import ConfigError
from sept.retrieval.embedding import check_readable
from sept.retrieval.index import Ranked
from sept.retrieval.select import random_subset, save_selection
from sept.retrieval.shards import Skip
from sept.runtime.hardware import Runtime
from sept.runtime.progress import progress
from sept.stages import task_selection
from sept.stages.features import named, skipped
from sept.stages.pool import open_pool
from sept.store import Artefact

SELECTION = "selection.parquet"


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    *,
    runtime: Runtime,
    places: Sequence[Mapping[str, Any]],
    max_unreadable: float,
    batch_size: int = 0,
    uri: str | None = None,
    task_location: Mapping[str, Any] | None = None,
    ready: Mapping[tuple[str, ...], Ranked] | None = None,
) -> dict[str, Any]:
    pool = open_pool(inputs, places)
    if "queries" in inputs:
        assert task_location is not None
        return task_selection.build(
            folder / SELECTION, inputs, spec, pool, runtime, batch_size, uri, task_location, ready or {}
        )
    readable = Readable(pool, max_unreadable)
    if spec["method"] == "random":
        parts = _parts(pool, spec["budget"], spec.get("source"), spec.get("share"))
        rows = np.concatenate([_random(rows, readable, count, spec["seed"]) for rows, count in parts])
    else:
        rows = readable.of(np.arange(len(pool)) if spec["source"] is None else pool.rows_of(spec["source"]))
    save_selection(folder / SELECTION, rows, [pool.key(row) for row in rows])
    skips = readable.skips
    return {"images": len(rows), "skipped": len(skips), "unreadable": named(skips), "flops": 0.0}


class Readable:
    """Sorts out the images of a pool that cannot be decoded; `skips` are those met so far."""

    def __init__(self, pool: ConcatPool, max_unreadable: float) -> None:
        self.pool, self.max_unreadable = pool, max_unreadable
        self.skips: list[Skip] = []

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Those of `rows` that can be decoded, in their order. Raises DataError beyond the tolerated share."""
        keep = np.ones(len(rows), dtype=bool)
        with progress("check that images can be read", len(rows)) as advance:
            for place, row in enumerate(rows.tolist()):
                try:
                    self.pool.image(row)
                except ImageError as error:
                    keep[place] = False
                    self.skips.append(skipped(self.pool, row, str(error)))
                    check_readable(self.skips, len(self.pool), self.max_unreadable)
                advance(1)
        return rows[keep]


def _parts(pool: ConcatPool, budget: int, source: str | None, share: float | None) -> list[tuple[np.ndarray, int]]:
    """Rows to draw from, and how many: of all of the pool, or of one source and of all others."""
    everything = np.arange(len(pool))
    if source is None or share is None:
        return [(everything, budget)]
    inside, count = pool.rows_of(source), round(share * budget)
    parts = [(inside, count), (np.setdiff1d(everything, inside, assume_unique=True), budget - count)]
    return [(rows, wanted) for rows, wanted in parts if wanted]


def _random(rows: np.ndarray, readable: Readable, budget: int, seed: int) -> np.ndarray:
    """The first `budget` of these rows, in their random order, that can be decoded."""
    chosen, seen, wanted = np.empty(0, dtype=np.int64), 0, budget
    while len(chosen) < budget:
        drawn = rows[random_subset(len(rows), wanted, seed)]
        chosen = np.concatenate([chosen, readable.of(drawn[seen:])])
        if len(chosen) < budget and wanted == len(rows):
            raise ConfigError(f"budget.images={budget:,} but the pool holds only {len(chosen):,} readable images")
        seen, wanted = wanted, min(len(rows), wanted + budget - len(chosen))
    return chosen
