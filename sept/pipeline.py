"""SEPT from top to bottom: what a result is made of (SEPT Fig. 2). Read this page first.

    run             -> finetune(task, initial weights)
    initial weights -> none | published checkpoint | pretrain(selection, start)   the columns of the paper's tables
                       (include_task: the task's training images beside the selection, or alone)
    selection       -> a source of the pool | random subset | Algorithm 1, or another selector(features, queries)
    features        -> retriever(pool)        queries -> retriever(few shots of the task)

Each property is a `Step`, a promise with a content key: nothing runs here, `Store.make` runs what is missing. A step
receives only what it uses, and is identified by what it receives. `sept.stages` defines the inputs and the work of
each.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sept.capability import remedy
from sept.config import Experiment
from sept.errors import ConfigError
from sept.methods.recipe import POOL_FEATURES
from sept.retrieval.fingerprints import THUMBNAIL
from sept.runtime import failures
from sept.runtime.hardware import Loggers, Runtime, no_loggers
from sept.stages import (
    copies,
    features,
    finetune,
    fingerprints,
    index,
    pool,
    pretrain,
    queries,
    selection,
    subset,
    task,
    vectors,
    weights,
)
from sept.stages.inputs import Presence
from sept.store.step import Artefact, Step

ON_DEVICE = {  # stages that compute on a GPU where there is one
    *("retriever", "features", "index", "queries", "selection", "pretrain", "finetune", "detect", "segment"),
}


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
        """loggers: for trainings, besides the CSV file. absent: for a plan, see `Presence`. ready: ranked lists from
        `sept.app.sweep.share_scans`."""
        self.e, self.runtime, self.loggers, self.ready = experiment, runtime, loggers, ready
        self.presence = Presence(absent)

    @cached_property
    def run(self) -> Step:
        """The fine-tuned model and its score: one cell of a table."""
        return self._guarded(finetune.step(self.e, self.task, self.initial_weights, self.runtime, self.loggers))

    @cached_property
    def untrained(self) -> Step | None:
        """The same fine-tuning of random weights, to compare with; None if this is it."""
        if self.initial_weights is None:
            return None
        return finetune.step(self.e, self.task, None, self.runtime, self.loggers)

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
        """The backbone, trained by a method on the selection."""
        e, side = self.e, self.e.pretrain.store_side
        if e.of_vectors:
            vectors.require_images(e.pool.path)
        start = weights.start("pretrain.from", e.pretrain.start, e.backbone, self.presence)
        copies = self.copies(side, e.pretrain.reads) if e.searches and not e.of_vectors else None
        subset = self._packed(self.selection, side, e.pretrain.reads) if e.selects else None
        own = self._task_images(side) if e.trains_on_task else None
        what = (e, subset, own, self.runtime, self.loggers)
        return self._guarded(pretrain.target(*what, start=start, task=self.task, copies=copies))

    @cached_property
    def chosen(self) -> list[Step]:
        """The result of a search without training: the selection, and copies in it, packed just large enough to find
        them. Raises ConfigError for a selector that chooses nothing."""
        if not self.e.selects:
            raise ConfigError(
                f"selector={self.e.selector.name} chooses no images of the pool: train.py pre-trains on the task's own"
            )
        return (
            [self.selection, self.copies(THUMBNAIL)] if self.e.searches and not self.e.of_vectors else [self.selection]
        )

    @cached_property
    def selection(self) -> Step:
        """The pool images to pre-train on, in the order chosen."""
        e, pool_of = self.e, (self.pools, self.pool_locations, self.left)
        if not e.searches:
            return self._guarded(selection.random(e, *pool_of))
        made = selection.like_task(
            *(e, *pool_of, self.queries, self.features, self.runtime),
            retriever=None if e.of_vectors else self.retriever,
            indexed=self.index if e.index.name != "exact" else None,
            fingerprints=self.fingerprints if e.leak == "remove" else None,
            ready=self.ready,
        )
        return self._guarded(made)

    @cached_property
    def left(self) -> int | None:
        """How many images of the budget are left to the pool; None for a selector that stops by itself."""
        return selection.places(self.e, self.task)

    def _task_images(self, side: int) -> Step:
        """All training images of the task, packed like a selection."""
        return self._guarded(subset.of_task(self.e, self.task, self.fingerprints, side, self.runtime))

    def _packed(self, chosen: Step, side: int, reads: str | None = None) -> Step:
        """The chosen images, decoded once into a compact local form, with what a method `reads` of them."""
        pool_of = (self.pools, self.pool_locations)
        features = self.features if reads == POOL_FEATURES else []
        return self._guarded(subset.step(chosen, *pool_of, side, self.e.pool, reads, self.runtime, features))

    def copies(self, side: int, reads: str | None = None) -> Step:
        """Which of the chosen images are copies of a test image or of each other, by thumbnails packed at this side."""
        packed = self._packed(self.selection, side, reads)
        return self._guarded(copies.step(self.selection, packed, self.fingerprints, self.runtime))

    # Retrieval

    @cached_property
    def features(self) -> list[Step]:
        """The pool, embedded: one vector a row. Each source by itself, so that a pool can grow."""
        e, sources = self.e, zip(self.pools, self.pool_locations, strict=True)
        if e.of_vectors:
            return [self._guarded(vectors.features(*source, e.pool.max_unreadable)) for source in sources]
        return [self._guarded(features.step(e, *source, self.retriever, self.runtime)) for source in sources]

    @cached_property
    def index(self) -> Step:
        """An approximate index over the features, or their int8 copy, built once per pool."""
        return self._guarded(index.step(self.e, self.features, self.runtime))

    @cached_property
    def queries(self) -> Step:
        """The few shots of the task, embedded like the pool; or the vectors of a file."""
        e = self.e
        if e.of_vectors:
            return self._guarded(vectors.queries(e.query.path, e.pool.path))
        return self._guarded(queries.step(e, self.task, self.retriever, self.runtime))

    @cached_property
    def retriever(self) -> Step:
        """The encoder: read from a file, or trained on the curated part of the pool."""
        e, r = self.e, self.e.retriever
        if r.weights is not None:
            return self._guarded(weights.retriever(r, self.presence))
        curated = self._guarded(selection.curated(e.pool, self.pools, self.pool_locations))
        packed = self._packed(curated, r.train.store_side, r.train.reads)
        start = weights.start("retriever.train.from", r.train.start, r.backbone, self.presence)
        return self._guarded(pretrain.retriever(r, packed, self.runtime, self.loggers, start))

    # Data

    @cached_property
    def pools(self) -> list[Step]:
        """The tables of the pool's images, one per source; for `patterns`, the images too."""
        p = self.e.pool
        return [self._guarded(pool.step(p, each, self.runtime, self.presence)) for each in self.pool_locations]

    @cached_property
    def pool_locations(self) -> list[pool.Location]:
        """Where the images of each source are, in row order."""
        return pool.locations(self.e.pool)

    @cached_property
    def task(self) -> Step:
        """The labelled images: classes, training and test examples; for `patterns`, the images too."""
        return self._guarded(task.step(self.e.task, self.runtime, self.presence))

    @cached_property
    def fingerprints(self) -> Step:
        """Thumbnails of the task's test images, to recognise copies of them."""
        return self._guarded(fingerprints.step(self.task, task.locate(self.e.task), self.runtime))

    def _guarded(self, step: Step) -> Step:
        """The step, whose build reports exhausted GPU memory with a remedy, and frees what it held."""

        def build(folder: Path, inputs: Mapping[str, Artefact]) -> Mapping[str, Any]:
            try:
                with failures.translated(step.stage, remedy(step.stage, self.e)):
                    return step.build(folder, inputs)
            finally:
                self.runtime.release()

        gpus = self.runtime.devices if self.runtime.accelerator != "cpu" and step.stage in ON_DEVICE else 0
        return replace(step, build=build, gpus=gpus)
