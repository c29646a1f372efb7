"""The pool images to pre-train on: those similar to the task, random ones, or a whole source of the pool."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sept.data.locate import Location
from sept.data.patterns.drawing import MIXTURES
from sept.data.settings import SYNTHETIC_POOLS
from sept.data.settings import Pool as PoolSettings
from sept.errors import ConfigError
from sept.retrieval.selections import SELECTION, save_selection
from sept.retrieval.settings import EXACT
from sept.runtime.hardware import Runtime
from sept.stages import VERSIONS, task_selection
from sept.stages.draws import RandomSpec, SourceSpec, parts
from sept.stages.numbered import number_inputs
from sept.stages.pool import open_pool
from sept.stages.task_selection import Lists, TaskSelectionSpec
from sept.store.step import Artefact, Step

if TYPE_CHECKING:
    from sept.config import Experiment


def like_task(
    e: "Experiment",
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
    """The images most similar to the task: SEPT Alg. 1 on exact ranked lists, or another selector or index.

    retriever: None for vectors of files. indexed: the approximate index, or the int8 copy, to search. fingerprints: of
    the test images, to exclude copies of them. ready: see `sept.app.sweep.share_scans`.
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


def random(e: "Experiment", pools: Sequence[Step], locations: Sequence[Location]) -> Step:
    """A uniform sample of the pool, or one with a given share of a source (SEPT Fig. 3)."""
    budget = _budget(e, pools)
    slug = f"{e.pool.name}-{e.selector.name}-{budget}"
    return _of_pool(RandomSpec(e.selector, budget, e.seed), budget, pools, locations, slug)


def _budget(e: "Experiment", pools: Sequence[Step]) -> int:
    """The number of images to select; refused, before any work, if the pool is known to hold fewer."""
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
    """runtime and lists: for a selection by similarity. The others read no images: see `draws`."""
    pool = open_pool(inputs, locations)
    if isinstance(spec, TaskSelectionSpec):
        assert runtime is not None
        assert lists is not None
        return task_selection.build(folder / SELECTION, inputs, spec, pool, runtime, lists)
    if isinstance(spec, RandomSpec):
        rows = np.concatenate([part.first() for part in parts(pool, spec)])
    else:
        rows = np.arange(len(pool)) if spec.source is None else pool.rows_of(spec.source)
    save_selection(folder / SELECTION, rows, [pool.key(row) for row in rows])
    return {"images": len(rows), "flops": 0.0}
