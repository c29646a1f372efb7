"""The pool images to pre-train on: those like the task, at random, or a whole source of the pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sept.config import Experiment
from sept.data.locate import Location
from sept.data.patterns.drawing import MIXTURES
from sept.data.pool import ConcatPool
from sept.data.settings import SYNTHETIC_POOLS
from sept.data.settings import Pool as PoolSettings
from sept.errors import ConfigError
from sept.retrieval.select import random_subset
from sept.retrieval.selections import SELECTION, save_selection
from sept.retrieval.settings import EXACT
from sept.runtime.hardware import Runtime
from sept.selectors import RandomSubset, Selector
from sept.stages import VERSIONS, task_selection
from sept.stages.numbered import number_inputs
from sept.stages.pool import open_pool
from sept.stages.task_selection import Lists, TaskSelectionSpec
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


def like_task(
    e: Experiment,
    pools: Sequence[Step],
    locations: Sequence[Location],
    queries: Step,
    features: Sequence[Step],
    runtime: Runtime,
    *,
    retriever: Step | None,
    indexed: Step | None,
    fingerprints: Step | None,
    ready: Mapping[tuple[str, ...], Any] | None,
) -> Step:
    """Those most like the task: SEPT Alg. 1 on exact ranked lists, or another selector or index.

    retriever: None where vectors of files are searched. indexed: the approximate index, or the int8 copy, that is
    searched. fingerprints: of the test images, to leave copies of them out. ready: see `sept.app.sweep.share_scans`.
    """
    budget, index, r, approximate = _budget(e, pools), e.index, e.retriever, e.index.name not in EXACT
    probing = (index.nprobe, index.sample) if approximate else (None, None)
    spec = TaskSelectionSpec(e.selector, budget, e.leak, r.seed, *probing)
    inputs = {"queries": queries, **number_inputs("features", features), **number_inputs("pool", pools)}
    if fingerprints is not None:
        inputs["fingerprints"] = fingerprints
    aids = {"retriever": retriever} if retriever else {}
    if indexed is not None:
        (inputs if approximate else aids)["index" if approximate else "compact"] = indexed
    lists = Lists(index.uri, r.batch_size, ready or {})
    return Step(
        "selection",
        VERSIONS["selection"],
        spec,
        inputs,
        partial(build, spec=spec, locations=locations, runtime=runtime, lists=lists),
        slug=f"{e.pool.name}-{e.selector.name}-{e.query.name if e.of_vectors else e.task.name}-{budget}",
        estimate=task_selection.estimate(spec, queries, features, r),
        aids=aids,
    )


def random(e: Experiment, pools: Sequence[Step], locations: Sequence[Location]) -> Step:
    """A uniform sample of the pool, or one with a given share of a source (SEPT Fig. 3)."""
    budget = _budget(e, pools)
    slug = f"{e.pool.name}-{e.selector.name}-{budget}"
    return _of_pool(RandomSpec(e.selector, budget, e.seed), budget, pools, locations, slug)


def _budget(e: Experiment, pools: Sequence[Step]) -> int:
    """The images to select; refused, before any work, when the pool is known to hold fewer."""
    counts = [int(pool.estimate["images"]) for pool in pools]
    if all(counts) and e.budget.images > sum(counts):
        raise ConfigError(f"budget.images={e.budget.images:,} but the pool holds only {sum(counts):,} images")
    return e.budget.images


def curated(p: PoolSettings, pools: Sequence[Step], locations: Sequence[Location]) -> Step:
    """The images a retriever is trained on: one source of the pool, or all of it."""
    share = MIXTURES[p.kind].curated if p.kind in SYNTHETIC_POOLS and p.curated else 1  # otherwise the pool bounds it
    images = int(share * sum(each.estimate["images"] for each in pools))
    return _of_pool(SourceSpec(p.curated), images, pools, locations, f"{p.name}-{p.curated or 'whole'}")


def _of_pool(
    spec: RandomSpec | SourceSpec, images: int, pools: Sequence[Step], locations: Sequence[Location], slug: str
) -> Step:
    return Step(
        "selection",
        VERSIONS["selection"],
        spec,
        number_inputs("pool", pools),
        partial(build, spec=spec, locations=locations),
        slug=slug,
        estimate={"images": images},
    )


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    *,
    spec: TaskSelectionSpec | RandomSpec | SourceSpec,
    locations: Sequence[Location],
    runtime: Runtime | None = None,
    lists: Lists | None = None,
) -> dict[str, Any]:
    """runtime and lists: of a selection by likeness. Of the others no image is looked at: see `draws`."""
    pool = open_pool(inputs, locations)
    if isinstance(spec, TaskSelectionSpec):
        assert runtime is not None
        assert lists is not None
        return task_selection.build(folder / SELECTION, inputs, spec, pool, runtime, lists)
    if isinstance(spec, RandomSpec):
        rows = np.concatenate([part.first() for part in _parts(pool, spec)])
    else:
        rows = np.arange(len(pool)) if spec.source is None else pool.rows_of(spec.source)
    save_selection(folder / SELECTION, rows, [pool.key(row) for row in rows])
    return {"images": len(rows), "flops": 0.0}


@dataclass(frozen=True)
class Draw:
    """What `wanted` rows are drawn from at random: the first of an order of `rows` that the seed gives."""

    rows: np.ndarray
    wanted: int
    seed: int

    def first(self) -> np.ndarray:
        return self.rows[random_subset(len(self.rows), self.wanted, self.seed)]

    def after(self, seen: int, missing: int) -> np.ndarray:
        """The next of the order, where of the `seen` rows before them so many are missing. Raises ConfigError."""
        if seen == len(self.rows):
            found = self.wanted - missing
            raise ConfigError(f"budget.images={self.wanted:,} but the pool holds only {found:,} readable images")
        return self.rows[random_subset(len(self.rows), min(len(self.rows), seen + missing), self.seed)][seen:]


def draws(spec: object, pool: ConcatPool) -> list[Draw] | None:
    """What the rows of a random subset were drawn from, in their order: whoever reads the images takes the next where
    one cannot be decoded. None for any other selection."""
    return _parts(pool, spec) if isinstance(spec, RandomSpec) else None


def _parts(pool: ConcatPool, spec: RandomSpec) -> list[Draw]:
    """All of the pool, or one source and all others."""
    everything, settings = np.arange(len(pool)), spec.selector
    assert isinstance(settings, RandomSubset)
    if settings.source is None or settings.share is None:
        return [Draw(everything, spec.budget, spec.seed)]
    inside, count = pool.rows_of(settings.source), round(settings.share * spec.budget)
    others = np.setdiff1d(everything, inside, assume_unique=True)
    parts = [Draw(inside, count, spec.seed), Draw(others, spec.budget - count, spec.seed)]
    return [part for part in parts if part.wanted]
