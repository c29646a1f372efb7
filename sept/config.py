"""The typed schema of an experiment. Settings of one part of the project are declared there: see the imports.

YAML files under conf/ hold values and nothing else. `sept.compose` turns them into a checked `Experiment`. A setting's
range is declared with it (`sept.ranges`); a group's `check` has the rules that involve several of its settings, and
`check_unused` refuses settings without effect, except in a sweep, where another cell may use them.
"""

from dataclasses import dataclass, field, fields

from sept import ranges
from sept.backbones import Backbone
from sept.costs.settings import Carbon
from sept.data.settings import DETECTION_TASKS, SEGMENTATION_TASKS, VECTORS, Pool, Query, Shot, Task
from sept.errors import ConfigError
from sept.methods import METHODS
from sept.methods.recipe import POOL_FEATURES, Recipe
from sept.ranges import check_ranges, require_one_of, require_unset
from sept.retrieval.settings import Index
from sept.retrievers import LIBRARIES
from sept.retrievers.settings import Retriever
from sept.runtime.settings import Engine, Hardware
from sept.selectors import SELECTORS, Selector
from sept.transfer.recipes import RECIPES, Transfer

MOST_STEPS, MOST_SEEN = 10**9, 10**13  # of a pre-training
ROUNDING = 1e-12  # of FLOPs that are a product: they suffice for their steps
CHARGES = {"retriever": True, "embedding": True, "selection": False}  # besides training; whether tasks share it
PUBLISHED = ("in1k_sup", "in1k_ssl", "foundation")  # inits that start from published weights
STAGES = (  # stages whose artefacts are stored; sept.stages has their versions
    *("pool", "task", "retriever", "features", "index", "queries", "fingerprints", "selection", "subset", "copies"),
    *("weights", "pretrain", "finetune", "detect", "segment"),
)


@dataclass
class Budget:
    """How many images may be pre-trained on (SEPT's K): of the pool, and with include_task of the task."""

    images: int | None = ranges.whole(0, least=1)  # null: as many as the selector stops at


@dataclass
class Compute:
    """How long to pre-train, by exactly one of: passes over the selection, images seen, and FLOPs spent.

    They compare methods and selections at equal epochs (SEPT), at equal samples, and at equal compute (Koppula et al.
    2022). Schedules end with the last step in each case.
    """

    epochs: int | None = ranges.epochs(None, least=1)
    images: int | None = ranges.whole(None, least=1, most=MOST_SEEN)
    flops: float | None = ranges.real(None, above=0, most=1e30)
    warmup: float | None = ranges.share(None)  # share of the steps to warm up in; null: the recipe's epochs
    # What the FLOPs have to pay for besides the training; `retriever` and `embedding` serve `tasks` tasks, which share
    # their cost.
    include: list[str] = ranges.several([], ranges.Text(tuple(CHARGES)))
    tasks: int = ranges.whole(1, least=1)

    def check(self) -> None:
        lengths = {name: getattr(self, name) for name in ("epochs", "images", "flops")}
        if sum(value is not None for value in lengths.values()) != 1:
            told = ", ".join(f"compute.{name}={value:g}" for name, value in lengths.items() if value is not None)
            raise ConfigError(
                f"{told or 'no length of pre-training is set'}: set exactly one of compute.epochs, "
                "compute.images and compute.flops, the others to null"
            )

    def check_unused(self) -> None:
        if self.flops is None:
            require_unset(self, "compute", ("include",), "only compute.flops pays for anything")
        if self.tasks != 1 and not any(CHARGES[charge] for charge in self.include):
            raise ConfigError(
                f"compute.tasks={self.tasks} would have no effect: compute.include names nothing that tasks share"
            )

    def part(self, charge: str) -> float:
        """The share of a charge that one task pays."""
        return 1 / self.tasks if CHARGES[charge] else 1.0

    def steps(self, batch: int, each: float, charged: float) -> int | None:
        """Steps of `batch` images that the images or the FLOPs suffice for; None if epochs are set. each: FLOPs of an
        image. charged: FLOPs to pay for besides. Raises ConfigError when they suffice for no step, or for too many."""
        if self.epochs is not None:
            return None
        if self.images is not None:
            told, steps, cost = f"compute.images={self.images:,}", self.images / batch, f"{batch:,} images"
        else:
            assert self.flops is not None
            left = self.flops - charged
            told, steps, cost = f"compute.flops={self.flops:g}", left / (each * batch), f"{each * batch:.3g} FLOPs"
            if charged:
                told += f", of which {' and '.join(self.include)} take {charged:.3g},"
        if steps < 1:
            raise ConfigError(f"{told} is less than one step, which takes {cost}")
        if steps > MOST_STEPS:
            raise ConfigError(f"{told} is more than {MOST_STEPS:,} steps of {cost} each")
        return int(steps * (1 + ROUNDING))


@dataclass
class Init:
    """Initial weights for fine-tuning: random, published, or from our own pre-training."""

    name: str = ranges.choice("pretrain", ("rand_init", *PUBLISHED, "pretrain"))
    weights: str | None = ranges.text(None)  # of PUBLISHED: a file, or `hub` for timm's of the backbone

    def check(self) -> None:
        if self.name in PUBLISHED and not self.weights:
            raise ConfigError(f"init={self.name} needs init.weights=FILE or hub, the published weights")

    def check_unused(self) -> None:
        if self.name not in PUBLISHED:
            require_unset(self, "init", ("weights",), f"init={self.name} reads no file")


@dataclass
class Logger:
    """Where curves go besides the CSV file that every training writes."""

    name: str = ranges.choice("csv", ("csv", "wandb"))
    project: str = ranges.text("sept")
    mode: str = ranges.choice(
        "auto", ("auto", "online", "offline")
    )  # wandb: auto is online when there is a key, else offline
    knn_every: int | None = ranges.epochs(
        None, least=1
    )  # epochs of a pre-training between k-NN tests on the task's few shots; null: none


@dataclass
class Storage:
    """The artefact store: its location, and whether it may be written."""

    root: str = ranges.text("store")
    mode: str = ranges.choice("reuse", ("reuse", "read-only"))
    force: list[str] = ranges.several([], ranges.Text(STAGES))  # stages to recompute


@dataclass
class Experiment:
    """One cell: every choice behind one row of a table."""

    seed: int = ranges.seed()  # few-shot draw, random subset, pre-training
    pool: Pool = field(default_factory=Pool)
    retriever: Retriever = field(default_factory=Retriever)
    index: Index = field(default_factory=Index)
    query: Query = field(default_factory=Query)
    budget: Budget = field(default_factory=Budget)
    compute: Compute = field(default_factory=Compute)
    init: Init = field(default_factory=Init)
    selector: Selector = field(default_factory=Selector)
    backbone: Backbone = field(default_factory=Backbone)
    pretrain: Recipe = field(default_factory=Recipe)
    finetune: Transfer = field(default_factory=Transfer)
    shot: Shot = field(default_factory=Shot)
    task: Task = field(default_factory=Task)
    hardware: Hardware = field(default_factory=Hardware)
    engine: Engine = field(default_factory=Engine)
    logger: Logger = field(default_factory=Logger)
    carbon: Carbon = field(default_factory=Carbon)
    store: Storage = field(default_factory=Storage)
    include_task: bool = False  # the task's training images, without labels, take places of the budget
    leak: str = ranges.choice("report", ("report", "remove"))  # copies of test images in a selection: report or remove
    table: str | None = ranges.text(None)  # the named sweep that this cell belongs to
    plan: bool = False  # print what would be done, and stop
    export: str | None = ranges.text(None)  # search.py: folder for the selected images
    export_copies: bool = False  # of images that are files, copies instead of links
    advise: bool = False  # say whether a selection should pay, and stop

    @property
    def pretrains(self) -> bool:
        """Whether the experiment pre-trains, on images that a selector chooses."""
        return self.init.name == "pretrain"

    @property
    def initial(self) -> str:
        """The column of the paper's tables: the initial weights, or the selector of the pre-training images."""
        return self.selector.name if self.pretrains else self.init.name

    @property
    def searches(self) -> bool:
        """Whether images are chosen by similarity to the task, so that pool and task are embedded."""
        return self.pretrains and SELECTORS[self.selector.name].searches

    @property
    def embeds(self) -> bool:
        """Whether the pool is embedded: to search it, or since the pre-training learns from its vectors."""
        return self.searches or (self.selects and self.pretrain.reads == POOL_FEATURES)

    @property
    def selects(self) -> bool:
        """Whether the pool's images are pre-trained on."""
        return self.pretrains and SELECTORS[self.selector.name].selects

    @property
    def trains_on_task(self) -> bool:
        """Whether the task's training images are pre-trained on."""
        return self.pretrains and (self.include_task or not self.selects)

    @property
    def of_vectors(self) -> bool:
        """Whether the pool is a file of vectors, so that nothing is embedded."""
        return self.pool.kind == VECTORS

    def check(self) -> None:
        """The range of every setting, each group's own rules, then those across groups; raises ConfigError."""
        check_ranges(self)
        require_one_of("selector.name", self.selector.name, SELECTORS)
        self.backbone.check("backbone")
        self.pretrain.check("pretrain")
        for item in fields(self):
            group = getattr(self, item.name)
            if hasattr(group, "check") and item.name not in ("backbone", "pretrain"):
                group.check()
        self._check_budget()
        self._check_text()
        self._check_batches()
        self._check_task()
        self._check_vectors()
        if self.trains_on_task and self.pretrain.reads is not None:
            what = "include_task=true" if self.selects else f"selector={self.selector.name}"
            raise ConfigError(
                f"{what}: pretrain={self.pretrain.name} learns from the pool's {self.pretrain.reads}, and the task's "
                "images have none of these: leave it out, or use a method of images alone"
            )
        if self.export is not None and (self.query.looks_up or not self.selects):
            what = "this looks images up" if self.query.looks_up else f"init={self.initial} makes none"
            raise ConfigError(f"export={self.export} writes the images of a selection: {what}")
        if self.advise and not self.searches:
            raise ConfigError(f"advise=true is about a selection by similarity, and init={self.initial} makes none")
        if self.advise and self.query.looks_up:
            asked = "text" if self.query.path is None else "path"
            raise ConfigError(f"advise=true is about a selection, and query.{asked} looks something up: leave one out")

    def _check_budget(self) -> None:
        if self.budget.images is not None or not self.selects:
            return
        stopping = [name for name, entry in SELECTORS.items() if entry.stops]
        if self.selector.name not in stopping:
            raise ConfigError(
                f"budget.images=null: selector={self.selector.name} needs a number; selector={', '.join(stopping)} "
                "finds its own"
            )

    def _check_text(self) -> None:
        r, text = self.retriever, self.query.text
        if text is not None and not LIBRARIES[r.library].text:
            raise ConfigError(
                f"query.text={text}: retriever={r.name} has no text tower; use one for images and text, "
                "retriever=clip_b16_text"
            )

    def _check_batches(self) -> None:
        training = {"pretrain.batch_size": self.pretrain.batch_size}
        if self.retriever.weights is None:
            training["retriever.train.batch_size"] = self.retriever.train.batch_size
        for key, batch in training.items():
            if batch % self.hardware.devices:
                raise ConfigError(f"{key}={batch} is not divisible by hardware.devices={self.hardware.devices}")

    def _check_task(self) -> None:
        task, shot = self.task, self.shot
        if self.query.name == "instance" and task.kind not in DETECTION_TASKS:
            raise ConfigError(
                f"query=instance needs annotated boxes, and task.kind={task.kind} has none: "
                f"{', '.join(DETECTION_TASKS)}"
            )
        if self.logger.knn_every is not None and task.kind in (*DETECTION_TASKS, *SEGMENTATION_TASKS):
            raise ConfigError(
                f"logger.knn_every={self.logger.knn_every} needs a task of classes, and task={task.name} has none"
            )
        if task.kind in SEGMENTATION_TASKS and task.images == 1:
            raise ConfigError(f"task.images=1: the batch norm of finetune={self.finetune.name} needs at least 2 images")
        drawn, wanted = task.train_per_class, shot.per_class
        if task.kind == "patterns" and drawn is not None and wanted is not None and wanted > drawn:
            raise ConfigError(
                f"shot.per_class={wanted} but each class of the task has task.train_per_class={drawn} images"
            )

    def _check_vectors(self) -> None:
        """Vectors are comparable only if one encoder made them: those of a file only with those of a file."""
        if not (self.searches or self.query.looks_up):
            return
        if self.of_vectors != (self.query.name == VECTORS):
            raise ConfigError(
                f"pool={self.pool.name} and query={self.query.name}: existing vectors are compared with each "
                "other only; use pool=vectors pool.path=FILE together with query=vectors query.path=FILE"
            )
        if self.of_vectors and self.leak == "remove":
            raise ConfigError("leak=remove compares images, and pool=vectors has none: use leak=report")

    def check_unused(self) -> None:
        """ConfigError for a setting that has no effect given the others."""
        if self.include_task and not self.selects:
            raise ConfigError(
                f"include_task=true would have no effect: {self.initial} pre-trains on no images of the pool"
            )
        if self.export_copies and self.export is None:
            raise ConfigError("export_copies=true would have no effect without export=FOLDER")
        for prefix, recipe, why in (
            ("pretrain", self.pretrain, "" if self.pretrains else f"init={self.init.name} does not pre-train"),
            ("retriever.train", self.retriever.train, self.retriever.weights and "retriever.weights is read instead"),
        ):
            if why and recipe.start is not None:
                raise ConfigError(f"{prefix}.from={recipe.start} would have no effect: {why}")
        for item in fields(self):
            group = getattr(self, item.name)
            if hasattr(group, "check_unused"):
                group.check_unused()


SETTINGS: dict[str, type] = {
    **METHODS,
    **RECIPES,
    **{name: entry.settings for name, entry in SELECTORS.items()},
}
"""Settings classes by the NAME in an option's `/settings@_here_: NAME`, for groups whose options differ in kind."""
