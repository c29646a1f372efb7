"""SEPT from top to bottom: what a result is made of (SEPT Fig. 2). Read this page first.

    run             -> finetune(task, initial weights)
    initial weights -> none | published checkpoint | pretrain(selection)          the columns of the paper's tables
    selection       -> a source of the pool | random subset | Algorithm 1(features, queries)
    features        -> retriever(pool)        queries -> retriever(few shots of the task)

Each function returns a `Step`, a promise with a content key: nothing runs here, `Store.make` runs what is missing. A
step receives only what it uses, and what it receives identifies it. Work is done in `sept.stages`, imported at its
start.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from sept import cost
from sept.config import Experiment
from sept.data import locate, tasks
from sept.data.patterns import CURATED_SHARE, classes
from sept.data.shots import draw
from sept.errors import ConfigError
from sept.machine import Machine
from sept.models.files import resolve
from sept.store import Artefact, Step

# Bump a stage's number in the commit that changes its output, and name it in CHANGELOG.md.
VERSIONS = {
    "pool": 1,
    "task": 1,
    "retriever": 2,
    "features": 1,
    "queries": 1,
    "selection": 1,
    "subset": 1,
    "weights": 1,
    "pretrain": 2,
    "finetune": 2,
}


class Pipeline:
    """The steps of one experiment on one machine."""

    def __init__(self, experiment: Experiment, machine: Machine) -> None:
        self.e, self.machine = experiment, machine

    def run(self) -> Step:
        """The fine-tuned classifier and its accuracy: one cell of a table."""
        e, weights = self.e, self.initial_weights()
        task = self.task()
        classes, images = task.estimate["classes"], self._shots(task)
        return self._step(
            "finetune",
            spec={
                "recipe": _without(asdict(e.finetune), "name"),
                "model": asdict(e.pretrain.model),
                "shot": asdict(e.shot),
                "shot_seed": e.seed,
                "precision": self.machine.precision,
            },
            inputs={"task": task} | ({"backbone": weights} if weights else {}),
            slug=f"{e.task.name}-{e.init.name}-seed{e.seed}.{e.finetune.seed}",
            estimate={
                "images": images * e.finetune.epochs,
                "flops": cost.finetune_flops(e.finetune, e.pretrain.model, int(classes), images * e.finetune.epochs),
            },
            machine=self.machine,
            path=self.e.task.path,
        )

    def initial_weights(self) -> Step | None:
        """Where fine-tuning starts: nothing, a published checkpoint, or our own pre-training."""
        match self.e.init.name:
            case "rand_init":
                return None
            case "in1k_sup" | "in1k_ssl":
                return self.published()
            case _:
                return self.pretrain(self.selection())

    def selection(self) -> Step:
        """The pool images to pre-train on, in the order chosen."""
        return self.random_subset() if self.e.init.name == "random" else self.algorithm1()

    # Pre-training

    def pretrain(self, selection: Step) -> Step:
        e, recipe = self.e, self.e.pretrain
        images = e.budget.images
        epochs = cost.pretrain_epochs(e.compute, recipe, images)
        return self._step(
            "pretrain",
            spec={
                "recipe": _without(asdict(recipe), "name", "store_side"),
                "epochs": epochs,
                "seed": e.seed,
                "precision": self.machine.precision,
            },
            inputs={"subset": self.subset(selection, recipe.store_side)},
            slug=f"{selection.slug}-seed{e.seed}",
            estimate={
                "images": images * epochs,
                "flops": cost.moby_flops(recipe, epochs * (images // recipe.batch_size)),
            },
            watched={"task": self.task()} if e.logger.knn_every else {},
            machine=self.machine,
            knn={"every": e.logger.knn_every, "path": e.task.path, "per_class": e.shot.per_class, "seed": e.seed},
        )

    def published(self) -> Step:
        assert self.e.init.weights is not None
        return self._weights_step("weights", self.e.init.weights, asdict(self.e.pretrain.model), self.e.init.name)

    def subset(self, selection: Step, side: int) -> Step:
        """The chosen images, decoded once into a compact local form."""
        return self._step(
            "subset",
            spec={"side": side},
            inputs={"selection": selection, "pool": self.pool()},
            slug=selection.slug,
            estimate={"images": selection.estimate["images"]},
            **self._pool_place(),
        )

    # Selection

    def algorithm1(self) -> Step:
        """SEPT Alg. 1 on exact ranked lists."""
        e, budget, features, queries = self.e, self._budget(), self.features(), self.queries()
        rows, n, dim = features.estimate["images"], queries.estimate["images"], 2 * cost.width(e.retriever.model)
        return self._step(
            "selection",
            spec={"method": "sept", "budget": budget},
            inputs={"features": features, "queries": queries, "pool": self.pool()},
            slug=f"{e.pool.name}-sept-{e.task.name}-{budget}",
            estimate={"images": budget, "flops": cost.search_flops(int(rows), int(n), dim)},
            machine=self.machine,
            **self._pool_place(),
            max_unreadable=self.e.pool.max_unreadable,
        )

    def random_subset(self) -> Step:
        budget = self._budget()
        return self._step(
            "selection",
            spec={"method": "random", "budget": budget, "seed": self.e.seed},
            inputs={"pool": self.pool()},
            slug=f"{self.e.pool.name}-random-{budget}",
            estimate={"images": budget},
            machine=self.machine,
            **self._pool_place(),
            max_unreadable=self.e.pool.max_unreadable,
        )

    def curated(self) -> Step:
        """The images the retriever is trained on: one source of the pool, or all of it."""
        pool, source = self.pool(), self.e.pool.curated
        share = CURATED_SHARE if self.e.pool.kind == "patterns" and source else 1  # otherwise the pool bounds it
        return self._step(
            "selection",
            spec={"method": "source", "source": source},
            inputs={"pool": pool},
            slug=f"{self.e.pool.name}-{source or 'whole'}",
            estimate={"images": int(share * pool.estimate["images"])},
            machine=self.machine,
            **self._pool_place(),
            max_unreadable=self.e.pool.max_unreadable,
        )

    # Retrieval

    def features(self) -> Step:
        """The pool, embedded: one vector a row."""
        r, pool = self.e.retriever, self.pool()
        return self._step(
            "features",
            spec={"preprocess": asdict(r.preprocess)},
            inputs={"pool": pool, "retriever": self.retriever()},
            slug=f"{self.e.pool.name}-{r.name}",
            estimate={
                "images": pool.estimate["images"],
                "flops": pool.estimate["images"] * cost.forward_flops(r.model, r.preprocess.crop),
            },
            machine=self.machine,
            **self._pool_place(),
            batch_size=r.batch_size,
            max_unreadable=self.e.pool.max_unreadable,
        )

    def queries(self) -> Step:
        """The few shots of the task, embedded as the pool is."""
        e, task = self.e, self.task()
        images = self._shots(task)
        return self._step(
            "queries",
            spec={
                "preprocess": asdict(e.retriever.preprocess),
                "query": e.query.name,
                "shot": asdict(e.shot),
                "shot_seed": e.seed,
            },
            inputs={"task": task, "retriever": self.retriever()},
            slug=f"{e.task.name}-{e.retriever.name}-seed{e.seed}",
            estimate={
                "images": images,
                "flops": images * cost.forward_flops(e.retriever.model, e.retriever.preprocess.crop),
            },
            machine=self.machine,
            path=self.e.task.path,
            batch_size=e.retriever.batch_size,
        )

    def retriever(self) -> Step:
        """The encoder: read from a file, or trained with iBOT."""
        r = self.e.retriever
        if r.weights is not None:
            return self._weights_step("retriever", r.weights, asdict(r.model), r.name, branch=r.branch)
        curated = self.curated()
        images = int(curated.estimate["images"])
        steps = r.train.epochs * max(1, images // r.train.batch_size)
        return self._step(
            "retriever",
            spec={
                "recipe": asdict(r.train),
                "model": asdict(r.model),
                "seed": r.seed,
                "precision": self.machine.precision,
            },
            inputs={"subset": self.subset(curated, r.preprocess.resize)},
            slug=r.name,
            estimate={"images": images * r.train.epochs, "flops": cost.ibot_flops(r.train, r.model, steps)},
            machine=self.machine,
        )

    # Data

    def pool(self) -> Step:
        """The table of the pool's images; for `patterns`, the images too."""
        p = self.e.pool
        if p.kind == "patterns":
            spec: dict[str, Any] = {"kind": p.kind, "images": p.images, "side": p.side, "seed": p.seed}
            images = p.images or 0
        else:
            listing, images = self._pool_listing
            spec = {"kind": p.kind, "listing": listing}
        return self._step(
            "pool", spec=spec, slug=p.name, estimate={"images": images}, machine=self.machine, **self._pool_place()
        )

    def task(self) -> Step:
        """The labelled images: classes, training and test examples; for `patterns`, the images too."""
        t = self.e.task
        if t.kind == "patterns":
            assert t.domain is not None
            assert t.train_per_class is not None
            spec: dict[str, Any] = _without(asdict(t), "name", "path", "test_fraction")
            estimate = {"classes": classes(t.domain), "per_class": t.train_per_class}
            estimate["images"] = estimate["classes"] * t.train_per_class
        else:
            listed = self._task_listing
            spec = {"kind": t.kind, "listing": tasks.digest(listed), "test_fraction": t.test_fraction, "seed": t.seed}
            estimate = {"classes": len(listed.classes), "images": len(listed.train)}
        return self._step("task", spec=spec, slug=t.name, estimate=estimate, machine=self.machine, path=t.path)

    @cached_property
    def _pool_listing(self) -> tuple[str, int]:
        """Digest and number of images of a pool on disk."""
        assert self.e.pool.path is not None
        return locate.identify(self.e.pool.kind, self.e.pool.path)

    @cached_property
    def _task_listing(self) -> tasks.Task:
        """Classes and examples of a task on disk."""
        t = self.e.task
        assert t.path is not None
        return tasks.read_imagefolder(Path(t.path), t.test_fraction, t.seed)

    def _pool_place(self) -> dict[str, Any]:
        """Where the pool's images lie; never part of a key."""
        return {"kind": self.e.pool.kind, "path": self.e.pool.path}

    def _budget(self) -> int:
        """Images that are selected; refused here, before any work, when the pool is known to hold fewer."""
        budget, held = self.e.budget.images, int(self.pool().estimate["images"])
        if held and budget > held:
            raise ConfigError(f"budget.images={budget:,} but the pool holds only {held:,} images")
        return budget

    def _shots(self, task: Step) -> int:
        """Training images that are used; a class with too few is refused here, before any work."""
        per_class = self.e.shot.per_class
        if self.e.task.kind != "patterns":
            listed = self._task_listing
            return len(draw(listed.train, per_class, self.e.seed, listed.classes))
        return int(task.estimate["images"] if per_class is None else task.estimate["classes"] * per_class)

    def _weights_step(self, stage: str, weights: str, model: dict, slug: str, branch: str = "teacher") -> Step:
        file = resolve(weights)
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        spec = {"model": model, "sha256": digest, "branch": branch}
        return self._step(stage, spec=spec, slug=slug, file=file)

    def _step(
        self,
        stage: str,
        *,
        spec: Mapping[str, Any],
        inputs: Mapping[str, Step] | None = None,
        slug: str,
        estimate: Mapping[str, float] | None = None,
        watched: Mapping[str, Step] | None = None,
        **given: Any,
    ) -> Step:
        """given: what the work needs to know and the result does not depend on."""

        def build(folder: Path, artefacts: Mapping[str, Artefact]) -> Mapping[str, Any]:
            stages = import_module(f"sept.stages.{stage}")
            return stages.build(folder, artefacts, spec, **given)

        return Step(stage, VERSIONS[stage], spec, inputs or {}, build, slug, estimate or {}, watched or {})


def _without(spec: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name not in names}
