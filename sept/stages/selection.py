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
from sept.selectors import SimCore
from sept.stages import VERSIONS, task_selection
from sept.stages.draws import RandomSpec, SourceSpec, parts
from sept.stages.inputs import number_inputs
from sept.stages.pool import open_pool
from sept.stages.task_selection import Lists, TaskSelectionSpec
from sept.store.step import Artefact, Step

if TYPE_CHECKING:
    from sept.config import Experiment


def like_task(
    e: "Experiment",
    pools: Sequence[Step],
    locations: Sequence[Location],
    places: int | None,
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

    places: how many images to select, None if the selector stops by itself. retriever: None for vectors of files.
    indexed: the approximate index, or the int8 copy, to search. fingerprints: of the test images, to exclude copies of
    them. ready: see `sept.app.sweep.share_scans`.
    """
    budget, index, r, approximate = _budget(e, pools, places), e.index, e.retriever, e.index.name not in EXACT
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
        slug=f"{e.pool.name}-{e.selector.name}-{e.query.name if e.of_vectors else e.task.name}-{budget or 'auto'}",
        estimate=task_selection.estimate(spec, queries, features, r),
        about=_about(e, places, int(queries.estimate["images"])),
        aids=aids,
    )


def _about(e: "Experiment", places: int | None, queries: int | None = None) -> str:
    """What a budget or a selector does not tell by itself; for the plan. queries: number of images that are looked
    up."""
    told, own = [], f"the training images of {e.task.name}, without labels,"
    if isinstance(e.selector, SimCore) and queries is not None and e.selector.clusters >= queries:
        told.append(f"selector.clusters={e.selector.clusters}: of the {queries} images each is looked up by itself")
    if places is None:
        told.append("budget=auto: how many images, and their FLOPs, is known after the search")
        told += [f"include_task=true: {own} join them"] if e.include_task else []
    elif e.include_task and e.budget.images is not None:
        told.append(
            f"include_task=true: {own} are {e.budget.images - places:,} of budget.images={e.budget.images:,}, "
            f"{places:,} are of the pool"
        )
    return "; ".join(told) and f"selection {e.selector.name}: " + "; ".join(told)


def random(e: "Experiment", pools: Sequence[Step], locations: Sequence[Location], places: int | None) -> Step:
    """A uniform sample of the pool, or one with a given share of a source (SEPT Fig. 3). places: how many images."""
    budget = _budget(e, pools, places)
    assert budget is not None, "only a search stops by itself"
    slug = f"{e.pool.name}-{e.selector.name}-{budget}"
    return _of_pool(RandomSpec(e.selector, budget, e.seed), budget, pools, locations, slug, _about(e, places))


def places(e: "Experiment", task: Step) -> int | None:
    """How many images of the budget are left to the pool: less those of the task that join them; None for a selector
    that stops by itself. Raises ConfigError if none are left."""
    if e.budget.images is None or not e.include_task:
        return e.budget.images
    own = int(task.estimate["images"])
    if own >= e.budget.images:
        raise ConfigError(
            f"include_task=true: the {own:,} training images of task={e.task.name} leave nothing of "
            f"budget.images={e.budget.images:,} to the pool: raise it, or use selector=target_only"
        )
    return e.budget.images - own


def _budget(e: "Experiment", pools: Sequence[Step], places: int | None) -> int | None:
    """The number of images to select; refused, before any work, if the pool is known to hold fewer."""
    counts = [int(pool.estimate["images"]) for pool in pools]
    if places is not None and all(counts) and places > sum(counts):
        told = f", {places:,} of them for the pool," if e.include_task else ""
        raise ConfigError(f"budget.images={e.budget.images:,}{told} but the pool holds only {sum(counts):,} images")
    return places


def curated(p: PoolSettings, pools: Sequence[Step], locations: Sequence[Location]) -> Step:
    """The images a retriever is trained on: one source of the pool, or all of it."""
    share = MIXTURES[p.kind].curated if p.kind in SYNTHETIC_POOLS and p.curated else 1  # otherwise the pool bounds it
    images = int(share * sum(each.estimate["images"] for each in pools))
    return _of_pool(SourceSpec(p.curated), images, pools, locations, f"{p.name}-{p.curated or 'whole'}")


def _of_pool(
    spec: RandomSpec | SourceSpec,
    images: int,
    pools: Sequence[Step],
    locations: Sequence[Location],
    slug: str,
    about: str = "",
) -> Step:
    return Step(
        "selection",
        VERSIONS["selection"],
        spec,
        number_inputs("pool", pools),
        partial(build, spec=spec, locations=locations),
        slug=slug,
        estimate={"images": images},
        about=about,
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
