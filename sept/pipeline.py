"""SEPT from top to bottom: what a result is made of (SEPT Fig. 2). Read this page first.

    run             -> finetune(task, initial weights)
    initial weights -> none | published checkpoint | pretrain(selection, start)   the columns of the paper's tables
    selection       -> a source of the pool | random subset | Algorithm 1, or another selector(features, queries)
    features        -> retriever(pool)        queries -> retriever(few shots of the task)

Each property is a `Step`, a promise with a content key: nothing runs here, `Store.make` runs what is missing. A step
receives only what it uses, and what it receives identifies it. What each is made of and does stands in `sept.stages`.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sept.capability import remedy
from sept.config import Experiment
from sept.runtime import failures
from sept.runtime.hardware import Loggers, Runtime, no_loggers
from sept.stages import features, finetune, index, pool, pretrain, queries, retriever, selection, subset, task, weights
from sept.stages.presence import Presence
from sept.store.step import Artefact, Step


class Pipeline:
    """The steps of one experiment on one machine; each is made once."""

    def __init__(
        self,
        experiment: Experiment,
        runtime: Runtime,
        *,
        loggers: Loggers = no_loggers,
        absent: dict[str, str] | None = None,
        ready: Mapping[tuple[str, ...], Any] | None = None,
    ) -> None:
        """loggers: of trainings, beside the CSV file. absent: of a plan, see `Presence`. ready: ranked lists that
        `sept.app.sweep.share_scans` found."""
        self.e, self.runtime, self.loggers, self.ready = experiment, runtime, loggers, ready
        self.presence = Presence(absent)

    @cached_property
    def run(self) -> Step:
        """The fine-tuned model and its score: one cell of a table."""
        e = self.e
        shots = task.shots(e.task, e.shot, e.query, e.seed, self.task) if e.task.images is None else 0
        slug = f"{e.task.name}-{e.initial}"
        made = finetune.step(
            *(e.task, self.task, e.shot, shots, e.seed, e.finetune, e.backbone),
            *(self.initial_weights, self.runtime, self.loggers, slug),
        )
        return self._guarded(made)

    @cached_property
    def initial_weights(self) -> Step | None:
        """Where fine-tuning starts: nothing, a published checkpoint, or our own pre-training."""
        e = self.e
        if e.pretrains:
            return self.pretrain
        if e.init.weights is None:
            return None
        return weights.step("weights", "init.weights", e.init.weights, e.backbone, e.init.name, self.presence)

    @cached_property
    def pretrain(self) -> Step:
        """The backbone, trained by a self-supervised method on the selection."""
        e, recipe = self.e, self.e.pretrain
        if e.of_vectors:
            from sept.stages import vectors

            vectors.require_images(e.pool.path)
        of_epoch = recipe.flops(e.backbone) * recipe.batch_size * (e.budget.images // recipe.batch_size)
        start = weights.start("pretrain.from", recipe.start, e.backbone, self.presence)
        probing = None
        if e.logger.knn_every:
            probing = pretrain.Probing(e.logger.knn_every, task.locate(e.task), e.shot, e.seed)
        made = pretrain.step(
            *("pretrain", recipe, e.backbone, self._packed(self.selection, recipe.store_side)),
            epochs=e.compute.passes(of_epoch),
            seed=e.seed,
            slug="-".join([self.selection.slug, *([start.slug] if start else []), f"seed{e.seed}"]),
            runtime=self.runtime,
            loggers=self.loggers,
            start=start,
            task=self.task if probing else None,
            probing=probing,
        )
        return self._guarded(made)

    @cached_property
    def selection(self) -> Step:
        """The pool images to pre-train on, in the order chosen."""
        e, pools, locations = self.e, self.pools, self.pool_locations
        budget = selection.budget_of(e.budget.images, pools)
        if not e.searches:
            slug = f"{e.pool.name}-{e.selector.name}-{budget}"
            made = selection.random(
                *(e.selector, budget, e.seed),
                pools=pools,
                locations=locations,
                runtime=self.runtime,
                slug=slug,
                max_unreadable=e.pool.max_unreadable,
            )
            return self._guarded(made)
        made = selection.like_task(
            *(e.selector, budget, e.leak, e.retriever, e.index),
            pools=pools,
            locations=locations,
            task=None if e.of_vectors else self.task,
            task_location=task.locate(e.task),
            queries=self.queries,
            features=self.features,
            retriever=None if e.of_vectors else self.retriever,
            indexed=self.index if e.index.name != "exact" else None,
            runtime=self.runtime,
            slug=f"{e.pool.name}-{e.selector.name}-{e.query.name if e.of_vectors else e.task.name}-{budget}",
            ready=self.ready,
        )
        return self._guarded(made)

    def _packed(self, chosen: Step, side: int) -> Step:
        """The chosen images, decoded once into a compact local form."""
        return self._guarded(subset.step(chosen, self.pools, self.pool_locations, side))

    # Retrieval

    @cached_property
    def features(self) -> list[Step]:
        """The pool, embedded: one vector a row. Each source by itself, so that a pool can grow."""
        e = self.e
        if e.of_vectors:
            from sept.stages import vectors

            return [self._guarded(vectors.features(self.pools[0], self.pool_locations[0], e.pool.max_unreadable))]
        how = (self.retriever, e.retriever, self.runtime, e.pool.max_unreadable, e.engine)
        pairs = zip(self.pools, self.pool_locations, strict=True)
        return [self._guarded(features.step(source, location, *how)) for source, location in pairs]

    @cached_property
    def index(self) -> Step:
        """An approximate index over the features, or their int8 copy, built once for a pool."""
        e = self.e
        slug = f"{e.pool.name}-{e.retriever.name}"
        return self._guarded(index.step(self.features, e.index, e.retriever.seed, slug, self.runtime))

    @cached_property
    def queries(self) -> Step:
        """The few shots of the task, embedded as the pool is; or the vectors of a file."""
        e = self.e
        if e.of_vectors:
            from sept.stages import vectors

            return self._guarded(vectors.queries(e.query.path, e.pool.path))
        what = (self.task, e.task, e.shot, e.query, e.seed)
        return self._guarded(queries.step(*what, self.retriever, e.retriever, self.runtime))

    @cached_property
    def retriever(self) -> Step:
        """The encoder: read from a file, or trained on the curated part of the pool."""
        e, r = self.e, self.e.retriever
        if r.weights is not None:
            return self._guarded(retriever.read(r, self.presence))
        curated = self._guarded(selection.curated(e.pool, self.pools, self.pool_locations, self.runtime))
        packed = self._packed(curated, r.train.store_side)
        return self._guarded(retriever.trained(r, packed, self.runtime, self.loggers, self.presence))

    # Data

    @cached_property
    def pools(self) -> list[Step]:
        """The tables of the pool's images, one a source; for `patterns`, the images too."""
        p = self.e.pool
        return [self._guarded(pool.step(p, each, self.runtime, self.presence)) for each in self.pool_locations]

    @cached_property
    def pool_locations(self) -> list[pool.Location]:
        """Where the images of each source lie, in the order of their rows."""
        return pool.locations(self.e.pool)

    @cached_property
    def task(self) -> Step:
        """The labelled images: classes, training and test examples; for `patterns`, the images too."""
        return self._guarded(task.step(self.e.task, self.runtime, self.presence))

    def _guarded(self, step: Step) -> Step:
        """The step, whose build tells a GPU's memory that ran out with what helps, and gives back what it held."""

        def build(folder: Path, inputs: Mapping[str, Artefact]) -> Mapping[str, Any]:
            try:
                with failures.translated(step.stage, remedy(step.stage, self.e)):
                    return step.build(folder, inputs)
            finally:
                self.runtime.release()

        return replace(step, build=build)
