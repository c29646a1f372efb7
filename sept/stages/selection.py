"""The pool images to pre-train on: by Algorithm 1, at random, or a whole source of the pool."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sept import cost
from sept.data.images import ImageError
from sept.data.pool import Pool
from sept.errors import ConfigError
from sept.machine import Machine
from sept.progress import progress
from sept.retrieval.features import Features
from sept.retrieval.index import Ranked, search
from sept.retrieval.select import random_subset, save_selection, select, statistics
from sept.stages import queries as query_stage
from sept.stages.pool import open_pool
from sept.store import Artefact

SELECTION = "selection.parquet"


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    *,
    machine: Machine,
    kind: str,
    path: str | None,
) -> dict[str, Any]:
    pool = open_pool(inputs["pool"], kind, path)
    if spec["method"] == "sept":
        return _algorithm1(folder, inputs, spec["budget"], pool, machine)
    if spec["method"] == "random":
        rows = _readable_random(pool, spec["budget"], spec["seed"])
    else:
        rows = _readable(pool, np.arange(len(pool)) if spec["source"] is None else pool.rows_of(spec["source"]))
    save_selection(folder / SELECTION, rows, [pool.key(row) for row in rows])
    return {"images": len(rows), "flops": 0.0}


def _algorithm1(
    folder: Path, inputs: Mapping[str, Artefact], budget: int, pool: Pool, machine: Machine
) -> dict[str, Any]:
    _require_same_encoder(inputs["features"], inputs["queries"])
    features = Features.open(inputs["features"].path)
    vectors, ids = query_stage.load(inputs["queries"])
    machine.use_threads()

    def to_depth(depth: int) -> Ranked:
        with progress(f"search to depth {depth:,}", features.rows) as advance:
            done = 0

            def moved(rows: int) -> None:
                nonlocal done
                advance(rows - done)
                done = rows

            return search(vectors, features, depth, machine.accelerator, progress=moved)

    found = select(to_depth, len(vectors), budget, features.embedded)
    save_selection(folder / SELECTION, found.rows, [pool.key(row) for row in found.rows], found, ids)
    flops = cost.search_flops(features.rows, len(vectors), features.dim)
    return {**statistics(found, len(vectors)), "flops": flops}


def _require_same_encoder(features: Artefact, queries: Artefact) -> None:
    """Vectors are comparable only when one encoder and one preprocessing made them (rule R6)."""
    pool, task = (
        {"retriever": each.manifest["inputs"]["retriever"], "preprocess": each.manifest["spec"]["preprocess"]}
        for each in (features, queries)
    )
    if pool != task:
        raise ConfigError(f"the pool was embedded by {pool} but the queries by {task}: embed both the same way")


def _readable_random(pool: Pool, budget: int, seed: int) -> np.ndarray:
    """The first `budget` images of the pool's random order that can be decoded."""
    wanted = budget
    while True:
        rows = random_subset(len(pool), wanted, seed)
        readable = _readable(pool, rows)
        if len(readable) >= budget:
            return readable[:budget]
        if wanted == len(pool):
            raise ConfigError(f"budget.images={budget:,} but the pool holds only {len(readable):,} readable images")
        wanted = min(len(pool), wanted + budget - len(readable))


def _readable(pool: Pool, rows: np.ndarray) -> np.ndarray:
    keep = np.ones(len(rows), dtype=bool)
    with progress("check that images can be read", len(rows)) as advance:
        for place, row in enumerate(rows):
            try:
                pool.image(int(row))
            except ImageError:
                keep[place] = False
            advance(1)
    return rows[keep]
