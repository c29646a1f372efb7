"""The pool images to pre-train on: by Algorithm 1, at random, or a whole source of the pool."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sept import cost
from sept.data.images import ImageError
from sept.data.pool import Union
from sept.errors import ConfigError
from sept.machine import Machine
from sept.progress import done, progress
from sept.retrieval.approximate import compare
from sept.retrieval.features import Skip, check_readable
from sept.retrieval.index import Ranked, search
from sept.retrieval.select import predicted_depth, random_subset, save_selection, select, statistics
from sept.stages import queries as query_stage
from sept.stages.features import named, skipped
from sept.stages.index import joined, numbered, opened
from sept.stages.pool import open_pool
from sept.store import Artefact

SELECTION = "selection.parquet"
SAMPLE_EVERY, LEAST_SHARDS = 16, 64  # shards: a sample of fewer than four says little


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    *,
    machine: Machine,
    places: Sequence[Mapping[str, Any]],
    max_unreadable: float,
    uri: str | None = None,
) -> dict[str, Any]:
    pool = open_pool(inputs, places)
    if spec["method"] == "sept":
        return _algorithm1(folder, inputs, spec, pool, machine, uri)
    readable = Readable(pool, max_unreadable)
    if spec["method"] == "random":
        rows = _random(pool, readable, spec["budget"], spec["seed"])
    else:
        rows = readable.of(np.arange(len(pool)) if spec["source"] is None else pool.rows_of(spec["source"]))
    save_selection(folder / SELECTION, rows, [pool.key(row) for row in rows])
    skips = readable.skips
    return {"images": len(rows), "skipped": len(skips), "unreadable": named(skips), "flops": 0.0}


def _algorithm1(
    folder: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    pool: Union,
    machine: Machine,
    uri: str | None,
) -> dict[str, Any]:
    for part in numbered(inputs, "features"):
        _require_same_encoder(part, inputs["queries"])
    features = joined(inputs)
    vectors, ids = query_stage.load(inputs["queries"])
    machine.use_threads()

    def exact(depth: int) -> Ranked:
        with progress(f"search to depth {depth:,}", features.rows) as advance:
            return search(vectors, features, depth, machine.accelerator, progress=done(advance))

    def depth_from_sample() -> int | None:
        """Reading one shard in `SAMPLE_EVERY` spares a pool of many a second scan."""
        if len(features.shards) < LEAST_SHARDS:
            return None
        some = features.every(SAMPLE_EVERY)
        lists = partial(search, vectors, some, device=machine.accelerator)
        return predicted_depth(lists, len(vectors), budget, some.embedded, features.embedded)

    budget, extra = spec["budget"], {}
    if "index" not in inputs:
        found = select(exact, len(vectors), budget, features.embedded, depth_from_sample())
    else:
        how = {"nprobe": spec["nprobe"], "uri": uri, "device": machine.accelerator}
        with opened(inputs["index"], inputs, how) as index:
            found = select(lambda depth: index.search(vectors, depth), len(vectors), budget, features.embedded)
            extra = dict(index.facts)
            if spec["sample"]:
                extra |= compare(index, features, vectors, budget, spec["sample"], 0, machine.accelerator)
    save_selection(folder / SELECTION, found.rows, [pool.key(row) for row in found.rows], found, ids)
    flops = cost.search_flops(features.rows, len(vectors), features.dim)
    return {**statistics(found, len(vectors)), **extra, "flops": flops}


def _require_same_encoder(features: Artefact, queries: Artefact) -> None:
    """Vectors are comparable only when one encoder and one preprocessing made them (rule R6)."""
    pool, task = (
        {"retriever": each.manifest["inputs"]["retriever"], "preprocess": each.manifest["spec"]["preprocess"]}
        for each in (features, queries)
    )
    if pool != task:
        raise ConfigError(f"the pool was embedded by {pool} but the queries by {task}: embed both the same way")


class Readable:
    """Sorts out the images of a pool that cannot be decoded; `skips` are those met so far."""

    def __init__(self, pool: Union, max_unreadable: float) -> None:
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


def _random(pool: Union, readable: Readable, budget: int, seed: int) -> np.ndarray:
    """The first `budget` images of the pool's random order that can be decoded."""
    chosen, seen, wanted = np.empty(0, dtype=np.int64), 0, budget
    while len(chosen) < budget:
        rows = random_subset(len(pool), wanted, seed)
        chosen = np.concatenate([chosen, readable.of(rows[seen:])])
        if len(chosen) < budget and wanted == len(pool):
            raise ConfigError(f"budget.images={budget:,} but the pool holds only {len(chosen):,} readable images")
        seen, wanted = wanted, min(len(pool), wanted + budget - len(chosen))
    return chosen
