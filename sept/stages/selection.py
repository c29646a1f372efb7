"""The pool images to pre-train on: those like the task, at random, or a whole source of the pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sept.data.locate import Location
from sept.data.patterns.drawing import MIXTURES
from sept.data.pool import ConcatPool
from sept.data.settings import SYNTHETIC_POOLS
from sept.data.settings import Pool as PoolSettings
from sept.errors import ConfigError
from sept.retrieval.select import random_subset
from sept.retrieval.selections import SELECTION, save_selection
from sept.retrieval.settings import EXACT, Index
from sept.retrievers.settings import Retriever
from sept.runtime.hardware import Runtime
from sept.selectors import RandomSubset, Selector
from sept.stages import VERSIONS, task_selection
from sept.stages.numbered import number_inputs
from sept.stages.pool import open_pool
from sept.stages.task_selection import Lists, TaskSelectionSpec
from sept.stages.unreadable import Readable, describe_skips
from sept.store.step import Artefact, Step


@dataclass(frozen=True)
class RandomSpec:
    """A random subset, and of which source a share of it comes."""

    selector: Selector
    budget: int
    seed: int


@dataclass(frozen=True)
class SourceSpec:
    """All images of a source; null: of the pool."""

    source: str | None


def budget_of(images: int, pools: Sequence[Step]) -> int:
    """The images to select; refused, before any work, when the pool is known to hold fewer."""
    counts = [int(pool.estimate["images"]) for pool in pools]
    if all(counts) and images > sum(counts):
        raise ConfigError(f"budget.images={images:,} but the pool holds only {sum(counts):,} images")
    return images


def like_task(
    selector: Selector,
    budget: int,
    leak: str,
    r: Retriever,
    index: Index,
    *,
    pools: Sequence[Step],
    locations: Sequence[Location],
    task: Step | None,
    task_location: Location,
    queries: Step,
    features: Sequence[Step],
    retriever: Step | None,
    indexed: Step | None,
    runtime: Runtime,
    slug: str,
    ready: Mapping[tuple[str, ...], Any] | None,
) -> Step:
    """task, retriever: None where vectors of files are searched. indexed: the approximate index, or the int8 copy, that
    is searched. ready: see `sept.app.sweep.share_scans`."""
    approximate = index.name not in EXACT
    spec = TaskSelectionSpec(
        selector,
        budget,
        leak,
        r.seed,
        index.nprobe if approximate else None,
        index.sample if approximate else None,
    )
    inputs = {"queries": queries, **number_inputs("features", features), **number_inputs("pool", pools)}
    inputs |= {"task": task} if task else {}
    aids = {"retriever": retriever} if retriever else {}
    if indexed is not None:
        (inputs if approximate else aids)["index" if approximate else "compact"] = indexed
    return Step(
        "selection",
        VERSIONS["selection"],
        spec,
        inputs,
        partial(
            build,
            spec=spec,
            locations=locations,
            runtime=runtime,
            lists=Lists(index.uri, r.batch_size, task_location, ready or {}),
        ),
        slug=slug,
        estimate=task_selection.estimate(spec, queries, features, r),
        aids=aids,
    )


def random(
    selector: Selector,
    budget: int,
    seed: int,
    *,
    pools: Sequence[Step],
    locations: Sequence[Location],
    runtime: Runtime,
    slug: str,
    max_unreadable: float,
) -> Step:
    """A uniform sample of the pool, or one with a given share of a source (SEPT Fig. 3)."""
    spec = RandomSpec(selector, budget, seed)
    return _of_pool(spec, budget, pools, locations, runtime, slug, max_unreadable)


def curated(p: PoolSettings, pools: Sequence[Step], locations: Sequence[Location], runtime: Runtime) -> Step:
    """The images a retriever is trained on: one source of the pool, or all of it."""
    share = MIXTURES[p.kind].curated if p.kind in SYNTHETIC_POOLS and p.curated else 1  # otherwise the pool bounds it
    images = int(share * sum(each.estimate["images"] for each in pools))
    slug = f"{p.name}-{p.curated or 'whole'}"
    return _of_pool(SourceSpec(p.curated), images, pools, locations, runtime, slug, p.max_unreadable)


def _of_pool(
    spec: RandomSpec | SourceSpec,
    images: int,
    pools: Sequence[Step],
    locations: Sequence[Location],
    runtime: Runtime,
    slug: str,
    max_unreadable: float,
) -> Step:
    return Step(
        "selection",
        VERSIONS["selection"],
        spec,
        number_inputs("pool", pools),
        partial(build, spec=spec, locations=locations, runtime=runtime, max_unreadable=max_unreadable),
        slug=slug,
        estimate={"images": images},
    )


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    *,
    spec: TaskSelectionSpec | RandomSpec | SourceSpec,
    locations: Sequence[Location],
    runtime: Runtime,
    max_unreadable: float = 0.0,
    lists: Lists | None = None,
) -> dict[str, Any]:
    pool = open_pool(inputs, locations)
    if isinstance(spec, TaskSelectionSpec):
        assert lists is not None
        return task_selection.build(folder / SELECTION, inputs, spec, pool, runtime, lists)
    readable = Readable(pool, max_unreadable)
    if isinstance(spec, RandomSpec):
        parts = _parts(pool, spec)
        rows = np.concatenate([_random(rows, readable, count, spec.seed) for rows, count in parts])
    else:
        rows = readable.of(np.arange(len(pool)) if spec.source is None else pool.rows_of(spec.source))
    save_selection(folder / SELECTION, rows, [pool.key(row) for row in rows])
    skips = readable.skips
    return {"images": len(rows), "skipped": len(skips), "unreadable": describe_skips(skips), "flops": 0.0}


def _parts(pool: ConcatPool, spec: RandomSpec) -> list[tuple[np.ndarray, int]]:
    """Rows to draw from, and how many: of all of the pool, or of one source and of all others."""
    everything, settings = np.arange(len(pool)), spec.selector
    assert isinstance(settings, RandomSubset)
    if settings.source is None or settings.share is None:
        return [(everything, spec.budget)]
    inside, count = pool.rows_of(settings.source), round(settings.share * spec.budget)
    parts = [(inside, count), (np.setdiff1d(everything, inside, assume_unique=True), spec.budget - count)]
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
