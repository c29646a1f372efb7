"""SEPT from top to bottom: what a result is made of (SEPT Fig. 2). Read this page first.

    run             -> finetune(task, initial weights)
    initial weights -> none | published checkpoint | pretrain(selection)          the columns of the paper's tables
    selection       -> a source of the pool | random subset | Algorithm 1, or another selector(features, queries)
    features        -> retriever(pool)        queries -> retriever(few shots of the task)

Each function returns a `Step`, a promise with a content key: nothing runs here, `Store.make` runs what is missing. A
step receives only what it uses, and what it receives identifies it. Work is done in `sept.stages`, imported at its
start.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from sept import cost
from sept.backbones.files import resolve
from sept.config import (
    DETECTION_TASKS,
    EXACT,
    RECIPES,
    SEGMENTATION_TASKS,
    STAGES,
    SYNTHETIC_POOLS,
    SYNTHETIC_TASKS,
    Experiment,
)
from sept.data import locate, tasks
from sept.data.about import about_source, about_task
from sept.data.annotated import draw_images
from sept.data.detection import boxes
from sept.data.patterns import MIXTURES, classes
from sept.data.read import OPTIONS, read
from sept.data.segmentation import masks
from sept.data.shots import draw
from sept.errors import ConfigError, DataError
from sept.paper import published
from sept.runtime import out_of_memory
from sept.runtime.hardware import Runtime
from sept.store import Artefact, Step
from sept.store.disk import sha256

# Large files whose readers check every part that they read; of all others the whole is checked before a stage begins.
BY_PART = {
    "features": ("shard-*.npy",),
    "index": ("shard-*.int8", "shard-*.scales"),
    "subset": ("pixels.bin",),
}

# Bump a stage's number in the commit that changes its output, and name it in CHANGELOG.md.
VERSIONS = {
    "pool": 1,
    "task": 1,
    "retriever": 3,
    "features": 5,
    "index": 2,
    "queries": 3,
    "selection": 3,
    "subset": 3,
    "weights": 2,
    "pretrain": 2,
    "finetune": 4,
    "detect": 1,
    "segment": 1,
}
assert VERSIONS.keys() == {*STAGES}, "config.STAGES, which store.force is checked against, names them all"


SHAPE = 4 / 3  # of a photograph, for estimates
T = TypeVar("T")


class Pipeline:
    """The steps of one experiment on one machine."""

    def __init__(
        self,
        experiment: Experiment,
        runtime: Runtime,
        absent: dict[str, str] | None = None,
        ready: Mapping[tuple[str, ...], Any] | None = None,
    ) -> None:
        """absent: of a plan, which goes on with published sizes where data or weights are not on this machine, and
        notes here what and why; without it they are refused. ready: ranked lists that `sweep.share_scans` found."""
        self.e, self.runtime, self.absent, self.ready = experiment, runtime, absent, ready

    def run(self) -> Step:
        """The fine-tuned model and its score: one cell of a table."""
        e = self.e
        wanted = (
            "detect"
            if e.task.kind in DETECTION_TASKS
            else "segment"
            if e.task.kind in SEGMENTATION_TASKS
            else "classify"
        )
        if not isinstance(e.finetune, RECIPES[wanted]):
            raise ConfigError(f"finetune={e.finetune.name} does not fit task={e.task.name}: finetune={wanted} does")
        return self.finetune("finetune" if wanted == "classify" else wanted)

    def finetune(self, stage: str) -> Step:
        """Classifier, detector or segmenter, trained on the labelled images from the initial weights; its score."""
        e, weights, task = self.e, self.initial_weights(), self.task()
        labelled: dict[str, Any] = {"shot": asdict(e.shot)} if e.task.images is None else {"images": e.task.images}
        images = (e.task.images or self._shots(task)) * e.finetune.epochs
        classes = int(task.estimate["classes"])
        if stage == "finetune" and classes < 2:
            raise DataError(
                f"task={e.task.name}: {e.task.path} has one class; a classifier needs two (search.py takes one, and so "
                "do tasks with boxes)"
            )
        return self._step(
            stage,
            spec={
                "recipe": _without(asdict(e.finetune), "name"),
                "model": asdict(e.pretrain.model),
                "shot_seed": e.seed,
                "precision": self.runtime.precision,
            }
            | labelled,
            inputs={"task": task} | ({"backbone": weights} if weights else {}),
            slug=f"{e.task.name}-{e.init.name}-seed{e.seed}.{e.finetune.seed}",
            estimate={
                "images": images,
                "flops": cost.finetune_flops(e.finetune, e.pretrain.model, classes, images),
            },
            runtime=self.runtime,
            place=self.task_location(),
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
        return self.random_subset() if self.e.init.name == "random" else self.similar()

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
                "precision": self.runtime.precision,
            }
            | self._compiled(),
            inputs={"subset": self.subset(selection, recipe.store_side)},
            slug=f"{selection.slug}-seed{e.seed}",
            estimate={
                "images": images * epochs,
                "flops": cost.moby_flops(recipe, epochs * (images // recipe.batch_size)),
            },
            aids={"task": self.task()} if e.logger.knn_every else {},
            runtime=self.runtime,
            knn={
                "every": e.logger.knn_every,
                "place": self.task_location(),
                "shot": asdict(e.shot),
                "seed": e.seed,
            },
        )

    def published(self) -> Step:
        assert self.e.init.weights is not None
        model, slug = asdict(self.e.pretrain.model), self.e.init.name
        return self._weights_step("weights", "init.weights", self.e.init.weights, model, slug)

    def subset(self, selection: Step, side: int) -> Step:
        """The chosen images, decoded once into a compact local form."""
        return self._step(
            "subset",
            spec={"side": side},
            inputs={"selection": selection} | self._numbered("pool", self.pools()),
            slug=selection.slug,
            estimate={
                "images": selection.estimate["images"],
                "bytes": selection.estimate["images"] * 3 * side**2 * SHAPE,
            },
            places=self.pool_locations(),
        )

    # Selection

    def similar(self) -> Step:
        """Those most like the task: SEPT Alg. 1 on exact ranked lists, or another selector or index."""
        e, budget, features, queries = self.e, self._budget(), self.features(), self.queries()
        n, dim = queries.estimate["images"], 2 * cost.width(e.retriever.model)
        rows = sum(each.estimate["images"] for each in features)
        approximate = {} if e.index.name in EXACT else {"nprobe": e.index.nprobe, "sample": e.index.sample}
        return self._step(
            "selection",
            spec={"method": e.init.name, "budget": budget, "leak": e.leak, "seed": e.retriever.seed} | approximate,
            inputs={"queries": queries, "task": self.task()}
            | self._numbered("features", features)
            | self._numbered("pool", self.pools())
            | ({"index": self.index()} if approximate else {}),
            slug=f"{e.pool.name}-{e.init.name}-{e.task.name}-{budget}",
            estimate={"images": budget, "flops": cost.search_flops(int(rows), int(n), dim)},
            aids={"retriever": self.retriever()} | ({"compact": self.index()} if e.index.name == "int8" else {}),
            runtime=self.runtime,
            batch_size=e.retriever.batch_size,
            places=self.pool_locations(),
            max_unreadable=self.e.pool.max_unreadable,
            uri=e.index.uri,
            task_location=self.task_location(),
            ready=self.ready,
        )

    def random_subset(self) -> Step:
        """A uniform sample of the pool, or one with a given share of a source (SEPT Fig. 3)."""
        budget, init = self._budget(), self.e.init
        mixed = {} if init.source is None else {"source": init.source, "share": init.share}
        return self._step(
            "selection",
            spec={"method": "random", "budget": budget, "seed": self.e.seed} | mixed,
            inputs=self._numbered("pool", self.pools()),
            slug=f"{self.e.pool.name}-random-{budget}",
            estimate={"images": budget},
            runtime=self.runtime,
            places=self.pool_locations(),
            max_unreadable=self.e.pool.max_unreadable,
        )

    def curated(self) -> Step:
        """The images the retriever is trained on: one source of the pool, or all of it."""
        pools, source, kind = self.pools(), self.e.pool.curated, self.e.pool.kind
        share = MIXTURES[kind].curated if kind in SYNTHETIC_POOLS and source else 1  # otherwise the pool bounds it
        return self._step(
            "selection",
            spec={"method": "source", "source": source},
            inputs=self._numbered("pool", pools),
            slug=f"{self.e.pool.name}-{source or 'whole'}",
            estimate={"images": int(share * sum(each.estimate["images"] for each in pools))},
            runtime=self.runtime,
            places=self.pool_locations(),
            max_unreadable=self.e.pool.max_unreadable,
        )

    # Retrieval

    def features(self) -> list[Step]:
        """The pool, embedded: one vector a row. Each source by itself, so that a pool can grow."""
        return [self._features(pool, place) for pool, place in zip(self.pools(), self.pool_locations(), strict=True)]

    def _features(self, pool: Step, place: dict[str, Any]) -> Step:
        r = self.e.retriever
        return self._step(
            "features",
            spec={"preprocess": asdict(r.preprocess), "precision": self.runtime.precision},
            inputs={"retriever": self.retriever(), "pool": pool},  # a file that is wrong is told before a scan
            slug=f"{pool.slug}-{r.name}",
            estimate={
                "images": pool.estimate["images"],
                "flops": pool.estimate["images"] * cost.forward_flops(r.model, r.preprocess.crop),
                "bytes": pool.estimate["images"] * 2 * 2 * cost.width(r.model),
            },
            runtime=self.runtime,
            place=place,
            batch_size=r.batch_size,
            max_unreadable=self.e.pool.max_unreadable,
            engine=asdict(self.e.engine),
        )

    def index(self) -> Step:
        """An approximate index over the features, or their int8 copy, built once for a pool."""
        e, features = self.e, self.features()
        return self._step(
            "index",
            spec={"name": e.index.name}
            | ({"nlist": e.index.nlist, "seed": e.retriever.seed} if e.index.name not in EXACT else {}),
            inputs=self._numbered("features", features),
            slug=f"{e.pool.name}-{e.retriever.name}-{e.index.name}",
            estimate={"images": sum(each.estimate["images"] for each in features)},
            runtime=self.runtime,
            uri=e.index.uri,
        )

    def queries(self) -> Step:
        """The few shots of the task, embedded as the pool is."""
        e, task = self.e, self.task()
        images = self._shots(task)
        return self._step(
            "queries",
            spec={
                "preprocess": asdict(e.retriever.preprocess),
                "precision": self.runtime.precision,
                "query": e.query.name,
                "shot": asdict(e.shot),
                "shot_seed": e.seed,
            }
            | ({"images": e.task.images} if e.task.kind in (*DETECTION_TASKS, *SEGMENTATION_TASKS) else {}),
            inputs={"retriever": self.retriever(), "task": task},
            slug=f"{e.task.name}-{e.retriever.name}-seed{e.seed}",
            estimate={
                "images": images,
                "flops": images * cost.forward_flops(e.retriever.model, e.retriever.preprocess.crop),
            },
            runtime=self.runtime,
            place=self.task_location(),
            batch_size=e.retriever.batch_size,
        )

    def retriever(self) -> Step:
        """The encoder: read from a file, or trained with iBOT."""
        r = self.e.retriever
        if r.weights is not None:
            return self._weights_step("retriever", "retriever.weights", r.weights, asdict(r.model), r.name, r.branch)
        curated = self.curated()
        images = int(curated.estimate["images"])
        steps = r.train.epochs * max(1, images // r.train.batch_size)
        return self._step(
            "retriever",
            spec={
                "recipe": asdict(r.train),
                "model": asdict(r.model),
                "seed": r.seed,
                "precision": self.runtime.precision,
            }
            | self._compiled(),
            inputs={"subset": self.subset(curated, r.preprocess.resize)},
            slug=r.name,
            estimate={"images": images * r.train.epochs, "flops": cost.ibot_flops(r.train, r.model, steps)},
            runtime=self.runtime,
        )

    # Data

    def pools(self) -> list[Step]:
        """The tables of the pool's images, one a source; for `patterns`, the images too."""
        return [self._pool(place) for place in self.pool_locations()]

    def _pool(self, place: dict[str, Any]) -> Step:
        p = self.e.pool
        if place["kind"] in SYNTHETIC_POOLS:
            spec: dict[str, Any] = {"kind": p.kind, "images": p.images, "side": p.side, "seed": p.seed}
            images = p.images or 0
            about = f"{images:,} images of {p.side} px, drawn"
        else:
            (listing, images), about = self._present(
                f"pool {place['path']}",
                lambda: (locate.identify(place["kind"], place["path"]), about_source(place["kind"], place["path"])),
                ((place["path"], published(place["name"] if p.kind == "union" else p.name).images), ""),
            )
            spec = {"kind": place["kind"], "listing": listing}
        slug = f"{p.name}-{place['name']}" if p.kind == "union" else p.name
        return self._step(
            "pool",
            spec=spec,
            slug=slug,
            estimate={"images": images},
            about=about and f"pool {slug}: {about}",
            runtime=self.runtime,
            place=place,
        )

    def task(self) -> Step:
        """The labelled images: classes, training and test examples; for `patterns`, the images too."""
        t, place = self.e.task, self.task_location()
        if t.kind in SYNTHETIC_TASKS:
            assert t.domain is not None
            assert t.train_per_class is not None
            names = ("domain", "train_per_class", "test_per_class", "side", "seed")
            spec = {"kind": t.kind} | {name: getattr(t, name) for name in names}
            estimate: dict[str, float] = {"classes": classes(t.domain), "per_class": t.train_per_class}
            estimate["images"] = estimate["classes"] * t.train_per_class
            each = f"images of each: {t.train_per_class:,} to train on, {t.test_per_class:,} to test on"
            about = f"{estimate['classes']:,} classes of {t.domain}, {each}, drawn"
        else:
            spec, estimate, about = self._present(f"task={t.name}", self._listed, self._unlisted())
        return self._step(
            "task",
            spec=spec,
            slug=t.name,
            estimate=estimate,
            about=about and f"task {t.name}: {about}",
            runtime=self.runtime,
            place=place,
        )

    def _listed(self) -> tuple[dict[str, Any], dict[str, float], str]:
        """Spec, estimate and description of a task on disk."""
        listed = self._task_listing
        estimate: dict[str, float] = {"classes": len(listed.classes), "images": len(listed.train)}
        return {"kind": self.e.task.kind, "listing": listed.identity}, estimate, about_task(listed)

    def _unlisted(self) -> tuple[dict[str, Any], dict[str, float], str]:
        """The same of a task that is absent; the plan names it elsewhere."""
        size = published(self.e.task.name)
        spec = {"kind": self.e.task.kind, "name": self.e.task.name}
        return spec, {"classes": size.classes, "images": size.images}, ""

    def _present(self, what: str, find: Callable[[], T], otherwise: T) -> T:
        """What `find` finds on this machine; `otherwise` in a plan, where it is not there."""
        try:
            return find()
        except (DataError, ConfigError) as error:
            if self.absent is None:
                raise
            self.absent[what] = str(error)
            return otherwise

    @property
    def _task_listing(self) -> tasks.Task | boxes.DetectionTask | masks.SegmentationTask:
        """Classes and examples of a task on disk."""
        return read(**self.task_location())

    def task_location(self) -> dict[str, Any]:
        """Where the task's images lie and how they are read; its content is in the key, not this."""
        t = self.e.task
        options = tuple((name, getattr(t, name)) for name in OPTIONS.get(t.kind, ()))
        return {"kind": t.kind, "path": t.path, "options": options}

    def pool_locations(self) -> list[dict[str, Any]]:
        """Where the images of each source lie, in the order of their rows; never part of a key."""
        p = self.e.pool
        sources = p.kept() if p.kind == "union" else {p.kind: p}
        return [{"name": name, "kind": source.kind, "path": source.path} for name, source in sources.items()]

    def _numbered(self, name: str, steps: list[Step]) -> dict[str, Step]:
        """One input a source: their order is the order of the pool's rows, and counts in the key."""
        return {f"{name}{i}": step for i, step in enumerate(steps)}

    def _budget(self) -> int:
        """Images that are selected; refused here, before any work, when the pool is known to hold fewer."""
        counts = [int(pool.estimate["images"]) for pool in self.pools()]
        budget, held = self.e.budget.images, sum(counts)
        if all(counts) and budget > held:
            raise ConfigError(f"budget.images={budget:,} but the pool holds only {held:,} images")
        return budget

    def _shots(self, task: Step) -> int:
        """Training images that are used; a class with too few is refused here, before any work."""
        e, shot = self.e, self.e.shot
        if e.task.kind in SYNTHETIC_TASKS or "listing" not in task.spec:
            return self._expected_shots(task)
        listed = self._task_listing
        if isinstance(listed, tasks.Task):
            return len(draw(listed.train, shot.per_class, e.seed, listed.classes, shot.share or 1.0))
        assert e.task.images is not None
        drawn = draw_images([*listed.train], e.task.images, e.seed)
        return len(boxes.instances(drawn)) if e.query.name == "instance" else len(drawn)

    def _expected_shots(self, task: Step) -> int:
        shot = self.e.shot
        if self.e.task.images is not None:
            per_image = published(self.e.task.name).boxes_per_image if self.e.query.name == "instance" else 1
            return int(per_image * self.e.task.images)
        share = (shot.share or 1.0) * task.estimate["images"]
        return int(share if shot.per_class is None else task.estimate["classes"] * shot.per_class)

    def _compiled(self) -> dict[str, bool]:
        """What a compiled network has in its spec: it rounds differently."""
        return {"compiled": True} if self.runtime.compile else {}

    def _weights_step(
        self, stage: str, option: str, weights: str, model: dict, slug: str, branch: str = "teacher"
    ) -> Step:
        """The weights in the file that the setting `option` names."""
        file, digest = self._present(weights, lambda: _digested(weights, option), (Path(weights), weights))
        spec = {"model": model, "sha256": digest, "branch": branch}
        return self._step(stage, spec=spec, slug=slug, file=file, option=option)

    def _step(
        self,
        stage: str,
        *,
        spec: Mapping[str, Any],
        inputs: Mapping[str, Step] | None = None,
        slug: str,
        estimate: Mapping[str, float] | None = None,
        aids: Mapping[str, Step] | None = None,
        about: str = "",
        **given: Any,
    ) -> Step:
        """given: what the work needs to know and the result does not depend on."""

        def build(folder: Path, artefacts: Mapping[str, Artefact]) -> Mapping[str, Any]:
            stages = import_module(f"sept.stages.{stage}")
            try:
                with out_of_memory.translated(stage, out_of_memory.remedy(stage, self.e)):
                    return stages.build(folder, artefacts, spec, **given)
            finally:
                self.runtime.release()

        return Step(
            stage,
            VERSIONS[stage],
            spec,
            inputs or {},
            build,
            slug=slug,
            estimate=estimate or {},
            aids=aids or {},
            by_part=BY_PART.get(stage, ()),
            about=about,
        )


def _digested(weights: str, option: str) -> tuple[Path, str]:
    file = resolve(weights, option)
    return file, sha256(file)


def _without(spec: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name not in names}
