"""The typed schema of an experiment: every setting is declared here once, with its own rules.

YAML files under conf/ hold values and nothing else. `sept.compose` turns them into a checked `Experiment`.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sept.errors import ConfigError


@dataclass
class Model:
    """A timm model: its registered name, and constructor arguments that differ from timm's."""

    name: str = ""
    args: dict[str, Any] = field(default_factory=dict)


POOL_KINDS = ("folder", "webdataset", "zip", "parquet", "list", "yfcc")  # how the images of a source lie on disk
CLASSIFIED = ("imagefolder", "csv", "flowers102", "stanford_cars", "food101", "places365", "inat2017")
SIMILAR = ("sept", "union_topk", "classifier", "cluster")  # inits whose images are chosen by likeness to the task
BOXED = ("voc", "cityscapes", "logodet", "patterns_boxes")  # tasks with annotated boxes
MASKED = ("voc_masks", "ade20k", "patterns_masks")  # tasks with a class for every pixel
DRAWN_POOLS = ("patterns", "patterns_scenes", "patterns_wild")  # of the embedded world
DRAWN = ("patterns", "patterns_boxes", "patterns_masks")  # its tasks


@dataclass
class Source:
    """One source of a union of pools."""

    kind: str = "folder"
    path: str | None = None


@dataclass
class Pool:
    """The unlabelled images that are searched. kind: one of DRAWN_POOLS, one of POOL_KINDS (on disk), or union."""

    name: str = ""
    kind: str = "folder"
    path: str | None = None  # of a folder or an archive; of several shards with braces and globs
    sources: dict[str, Any] = field(default_factory=dict)  # union: Source by name, in the order of their rows
    without: list[str] = field(default_factory=list)  # union: sources to do without
    images: int | None = None  # patterns: how many to draw
    side: int | None = None  # patterns: pixels
    seed: int = 0  # patterns: the world's seed
    curated: str | None = None  # source the retriever is trained on; null: the whole pool
    max_unreadable: float = 0.05  # share of unreadable images above which embedding fails

    def __post_init__(self) -> None:
        """Sources as such: a typed mapping would take no further one from a command line."""
        for name, source in self.sources.items():
            if not isinstance(source, Source):
                unknown = set(source or {"nothing": 0}) - {"kind", "path"}
                if unknown:
                    raise ConfigError(f"pool.sources.{name}: {sorted(unknown)} given, needs kind and path")
                self.sources[name] = Source(**source)

    def check(self) -> None:
        _one_of("pool.kind", self.kind, (*DRAWN_POOLS, "union", *POOL_KINDS))
        if self.kind in DRAWN_POOLS:
            _require("pool", self, ("images", "side"))
        elif self.kind == "union":
            self._check_union()
        else:
            _require("pool", self, ("path",))
        if not 0 <= self.max_unreadable < 1:
            raise ConfigError(f"pool.max_unreadable={self.max_unreadable} is a share: it must lie in [0, 1)")

    def _check_union(self) -> None:
        for name in self.without:
            _one_of("pool.without", name, tuple(self.sources))
        for name, source in self.kept().items():
            _one_of(f"pool.sources.{name}.kind", source.kind, POOL_KINDS)
            if source.path is None:
                raise ConfigError(f"pool.sources.{name}.path is not set; set it, or pool.without=[{name}]")
        if not self.kept():
            raise ConfigError(f"pool={self.name} has no source left: pool.without={self.without}")

    def kept(self) -> dict[str, Source]:
        """The sources of a union that are used, in the order of their rows."""
        return {name: source for name, source in self.sources.items() if name not in self.without}


@dataclass
class Preprocess:
    """What an image goes through before the retrieval encoder: the same for pool and task."""

    resize: int = 256
    crop: int = 224
    squash: bool = True  # resize to a square (SEPT's wording), else by the shorter side (iBOT's evaluation)


@dataclass
class IBotRecipe:
    """How a retriever is trained (iBOT)."""

    epochs: int = 800
    batch_size: int = 1024
    lr: float = 5e-4  # per 256 images
    min_lr: float = 1e-6
    warmup_epochs: int = 10
    weight_decay: float = 0.04
    weight_decay_end: float = 0.4
    clip: float = 3.0
    freeze_last_layer_epochs: int = 1
    momentum: float = 0.996
    drop_path_rate: float = 0.1
    out_dim: int = 8192
    head_hidden_dim: int = 2048
    head_bottleneck_dim: int = 256
    student_temp: float = 0.1
    teacher_temp: float = 0.07
    warmup_teacher_temp: float = 0.04
    warmup_teacher_temp_epochs: int = 30
    center_momentum: float = 0.9
    pred_ratio: list[float] = field(default_factory=lambda: [0.0, 0.3])
    pred_ratio_var: list[float] = field(default_factory=lambda: [0.0, 0.2])
    side: int = 224
    global_scale: list[float] = field(default_factory=lambda: [0.25, 1.0])
    local_crops: int = 10
    local_side: int = 96
    local_scale: list[float] = field(default_factory=lambda: [0.05, 0.25])
    blur_radius: list[float] = field(default_factory=lambda: [0.1, 2.0])
    jitter: float = 1.0  # multiplies the published brightness .4, contrast .4, saturation .2, hue .1


@dataclass
class Retriever:
    """The encoder that embeds pool and task: weights from a file, or trained with iBOT on the pool."""

    name: str = ""
    model: Model = field(default_factory=Model)
    weights: str | None = None  # a file; "sept:NAME" is one shipped with the package; null: train
    branch: str = "teacher"  # of a full iBOT checkpoint
    train: IBotRecipe = field(default_factory=IBotRecipe)
    preprocess: Preprocess = field(default_factory=Preprocess)
    batch_size: int = 256  # of the embedding; no influence on the result
    seed: int = 0

    def check(self) -> None:
        _one_of("retriever.branch", self.branch, ("teacher", "student"))
        _positive("retriever.train.epochs", self.train.epochs)
        _positive("retriever.train.batch_size", self.train.batch_size)
        _positive("retriever.batch_size", self.batch_size)


EXACT = ("exact", "int8")  # ways to search that give the same lists


@dataclass
class Index:
    """How the pool's features are searched. exact: a streamed scan of every vector; int8: of an int8 copy, with the
    same result; ivf_sq8 and milvus: approximate."""

    name: str = "exact"
    nlist: int | None = None  # approximate: cells of the paper's index, fewer where the pool is small
    nprobe: int | None = None  # approximate: cells out of nlist that a query looks into
    uri: str | None = None  # milvus: of a cluster; null: Milvus Lite, in a file
    sample: int | None = None  # approximate: queries whose lists are compared with the exact scan's; 0: none

    def check(self) -> None:
        _one_of("index.name", self.name, (*EXACT, "ivf_sq8", "milvus"))
        if self.name in EXACT:
            return
        if self.nlist is None or self.nprobe is None or self.sample is None:
            raise ConfigError(f"index={self.name} needs index.nlist, index.nprobe and index.sample")
        if not 0 < self.nprobe <= self.nlist:
            raise ConfigError(f"index.nprobe={self.nprobe} must lie between 1 and index.nlist={self.nlist}")


@dataclass
class Query:
    """What of the task is looked up in the pool: its whole training images, or the boxes annotated in them."""

    name: str = "image"
    path: str | None = None  # search.py: an image or folder to look up instead of the task
    top: int = 20  # search.py: how many matches a looked-up image shows

    def check(self) -> None:
        _one_of("query.name", self.name, ("image", "instance"))


@dataclass
class Budget:
    """How many pool images may be pre-trained on (SEPT's K)."""

    images: int = 0

    def check(self) -> None:
        _positive("budget.images", self.images)


@dataclass
class Compute:
    """How long to pre-train: passes over the selection, or a number of FLOPs; exactly one."""

    epochs: int | None = None
    flops: float | None = None

    def check(self) -> None:
        if (self.epochs is None) == (self.flops is None):
            raise ConfigError(
                f"compute.epochs={self.epochs} and compute.flops={self.flops}: set exactly one, the other to null"
            )
        if self.epochs is not None:
            _positive("compute.epochs", self.epochs)


@dataclass
class Init:
    """Where the fine-tuned weights start: the paper's columns."""

    name: str = "sept"
    weights: str | None = None  # in1k_sup, in1k_ssl: the published checkpoint
    source: str | None = None  # random: a source of the pool that `share` of the images come from, the rest from others
    share: float | None = None

    def check(self) -> None:
        if (self.source is None) != (self.share is None) or (self.source and self.name != "random"):
            raise ConfigError(
                f"init.source={self.source} and init.share={self.share}: set both or neither, and only with init=random"
            )
        if self.share is not None and not 0 <= self.share <= 1:
            raise ConfigError(f"init.share={self.share} is a share: it must lie in [0, 1]")
        _one_of("init.name", self.name, ("rand_init", "in1k_sup", "in1k_ssl", "random", *SIMILAR))
        if self.name.startswith("in1k") and not self.weights:
            raise ConfigError(f"init={self.name} needs init.weights=FILE, the published checkpoint")


@dataclass
class Pretrain:
    """MoBy on the selection. Values and their sources: conf/pretrain/moby_swin_t.yaml."""

    name: str = ""
    model: Model = field(default_factory=Model)
    side: int = 224
    batch_size: int = 512
    lr: float = 1e-3  # per `lr_batch` images
    lr_batch: int = 512
    schedule: str = "cosine"
    warmup_epochs: int = 5
    warmup_lr: float = 5e-7
    min_lr: float = 5e-6
    weight_decay: float = 0.05
    decay_bias_table: bool = True
    clip: float = 5.0
    drop_path_rate: float = 0.2
    hidden_dim: int = 4096
    out_dim: int = 256
    queue: int = 4096
    temperature: float = 0.2
    momentum: float = 0.99
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    blur: list[float] = field(default_factory=lambda: [1.0, 0.1])  # probability, view 1 and 2
    blur_radius: list[float] = field(default_factory=lambda: [0.1, 2.0])
    solarise: list[float] = field(default_factory=lambda: [0.0, 0.2])
    jitter: float = 1.0  # multiplies the published brightness .4, contrast .4, saturation .2, hue .1
    grayscale: float = 0.2
    store_side: int = 256  # shorter side at which the selection is stored locally

    def check(self) -> None:
        _one_of("pretrain.schedule", self.schedule, ("cosine", "constant"))
        _positive("pretrain.batch_size", self.batch_size)
        if self.queue < self.batch_size:
            raise ConfigError(
                f"pretrain.queue={self.queue} does not hold one batch of keys: pretrain.batch_size={self.batch_size}"
            )


@dataclass
class Finetune:
    """Classifier, detector or segmenter on the task's labels. What all have; values come with a recipe below."""

    name: str = ""
    seed: int = 0
    epochs: int = 100
    batch_size: int = 64
    weight_decay: float = 0.05
    drop_path_rate: float = 0.1
    test_every: int = 10  # epochs

    def check(self) -> None:
        _positive("finetune.epochs", self.epochs)
        _positive("finetune.batch_size", self.batch_size)
        _positive("finetune.test_every", self.test_every)


@dataclass
class Classify(Finetune):
    """The classifier. Values and their sources: conf/finetune/classify.yaml."""

    side: int = 224
    lr: float = 5e-3  # per `lr_batch` images
    lr_batch: int = 512
    warmup_epochs: int = 10
    warmup_lr: float = 2.5e-7  # per `lr_batch` images
    min_lr: float = 2.5e-7  # per `lr_batch` images
    layer_decay: float = 0.9
    clip: float = 5.0
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"
    erasing: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_prob: float = 1.0
    smoothing: float = 0.1


@dataclass
class Detect(Finetune):
    """Faster R-CNN with FPN on the backbone. Values and their sources: conf/finetune/detect.yaml."""

    lr: float = 1e-4
    milestones: list[int] = field(default_factory=lambda: [27, 33])  # epochs at whose end the rate drops to a tenth
    warmup_steps: int = 500
    warmup_factor: float = 1e-3  # of the rate at step 0
    short_sides: list[int] = field(default_factory=lambda: list(range(480, 801, 32)))  # one is drawn for an image
    long_side: int = 1333  # at most
    test_short_side: int = 800
    fpn_width: int = 256
    head_width: int = 1024
    anchor_sides: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])  # one a level of the pyramid
    anchor_ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    rpn_samples: int = 256
    proposals: list[int] = field(default_factory=lambda: [2000, 1000])  # of a level before, of an image after NMS
    roi_samples: int = 512
    score: float = 0.05  # least, of a detection
    nms: float = 0.5
    detections: int = 100  # at most, of an image

    def check(self) -> None:
        super().check()
        if len(self.anchor_sides) != 5:
            raise ConfigError(f"finetune.anchor_sides={self.anchor_sides}: the pyramid has 5 levels, one side each")
        if sorted(self.milestones) != self.milestones:
            raise ConfigError(f"finetune.milestones={self.milestones} must ascend")


@dataclass
class Segment(Finetune):
    """Semantic segmentation with UPerNet on the backbone. Values and their sources: conf/finetune/segment.yaml."""

    lr: float = 6e-5
    warmup_steps: int = 1500
    warmup_factor: float = 1e-6  # of the rate at step 0
    side: int = 512  # of a training crop; the shorter side of a test image
    long_side: int = 2048  # at most, of a test image
    scale: list[float] = field(default_factory=lambda: [0.5, 2.0])  # training: times these two, before the crop
    decoder_width: int = 512
    dropout: float = 0.1  # before the classifiers, of whole channels
    auxiliary: float = 0.4  # weight of the loss at the map before the last

    def check(self) -> None:
        super().check()
        if self.batch_size < 2:
            raise ConfigError(f"finetune.batch_size={self.batch_size}: batch norm needs at least 2 images")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"finetune.scale={self.scale}: the least and the greatest factor, both above 0")


RECIPES: dict[str, type[Finetune]] = {"classify": Classify, "detect": Detect, "segment": Segment}


@dataclass
class Shot:
    """How many labelled images a class has: a number, a share of what there are, or null and null for all."""

    per_class: int | None = 5
    share: float | None = None

    def check(self) -> None:
        if self.share is not None and (self.per_class is not None or not 0 < self.share <= 1):
            raise ConfigError(f"shot.share={self.share}: a share in (0, 1], with shot.per_class=null")
        if self.per_class is not None:
            _positive("shot.per_class", self.per_class)


@dataclass
class Task:
    """The labelled task. kind: one of DRAWN, or on disk one of CLASSIFIED, BOXED or MASKED."""

    name: str = ""
    kind: str = "imagefolder"
    path: str | None = None  # the data set's folder or the one that holds it; csv: the file
    domain: str | None = None  # patterns
    train_per_class: int | None = None  # patterns
    test_per_class: int | None = None  # patterns
    side: int | None = None  # patterns: pixels
    test_fraction: float = 0.2  # imagefolder or csv without a test split: share of each class held out
    subset: str | None = None  # inat2017: plantae, insecta or all13, whose species are drawn from
    class_list: str | None = None  # inat2017: a file of species instead of the draw, one a line
    images: int | None = None  # BOXED and MASKED: training images that are drawn
    seed: int = 0  # of the drawing, of the split or of the draw of classes

    def check(self) -> None:
        _one_of("task.kind", self.kind, dict.fromkeys((*DRAWN, *CLASSIFIED, *BOXED, *MASKED)))
        if self.kind in DRAWN:
            _require("task", self, ("domain", "train_per_class", "test_per_class", "side"))
        else:
            _require("task", self, ("path",))
        if self.kind == "inat2017" and self.class_list is None:
            _require("task", self, ("subset",))
        if self.kind in (*BOXED, *MASKED):
            _require("task", self, ("images",))


@dataclass
class Hardware:
    """Where and how the work runs; never part of a result's identity, except `precision` and `compile`."""

    accelerator: str = "auto"
    devices: int = 1  # that share a self-supervised training: GPUs, or processes on CPUs
    workers: Any = "auto"  # data loaders of each device; 0 reads in the training process; auto: cores a GPU, 0 on CPUs
    chunk: Any = "auto"  # images encoded at a time where a batch does not fit; null: the whole batch; auto: what fits
    compile: bool = False  # encoders and colours of self-supervised trainings by torch.compile; rounds, so part of keys
    threads: int | None = None  # of torch; null: as many as cores
    search_mib: int = 1024  # memory for what a search finds, beside two blocks of features
    precision: str = "auto"  # auto: bf16-mixed on GPUs, 32 on CPUs
    checkpoint_every_s: float = 60.0  # of a training stage

    def check(self) -> None:
        _one_of("hardware.accelerator", self.accelerator, ("auto", "cpu", "cuda"))
        _one_of("hardware.precision", self.precision, ("auto", "32", "bf16-mixed"))
        _positive("hardware.devices", self.devices)
        _positive("hardware.search_mib", self.search_mib)
        if self.workers != "auto" and not (type(self.workers) is int and self.workers >= 0):
            raise ConfigError(f"hardware.workers={self.workers}: auto or a number of processes, 0 for none")
        if self.chunk not in ("auto", None) and not (type(self.chunk) is int and self.chunk > 0):
            raise ConfigError(f"hardware.chunk={self.chunk}: auto, null or a number of images, at least 1")


@dataclass
class Engine:
    """Who embeds the pool: local, this machine's hardware.devices; ray, the workers of a Ray cluster."""

    name: str = "local"
    address: str | None = None  # ray: HOST:PORT; null: the cluster this machine belongs to
    workers: int | None = None  # ray: at most so many; null: as many as fit

    def check(self) -> None:
        _one_of("engine.name", self.name, ("local", "ray"))


@dataclass
class Logger:
    """Where curves go beside the CSV file that every training writes."""

    name: str = "csv"
    project: str = "sept"
    mode: str = "auto"  # wandb: auto is online when there is a key, else offline
    knn_every: int | None = None  # epochs of a pre-training between k-NN tests on the task's few shots; null: none

    def check(self) -> None:
        _one_of("logger.name", self.name, ("csv", "wandb"))
        if self.knn_every is not None:
            _positive("logger.knn_every", self.knn_every)
        _one_of("logger.mode", self.mode, ("auto", "online", "offline"))


@dataclass
class Storage:
    """The artefact store: where, and whether it may compute."""

    root: str = "store"
    mode: str = "reuse"
    force: list[str] = field(default_factory=list)  # stages to compute again

    def check(self) -> None:
        _one_of("store.mode", self.mode, ("reuse", "read-only"))


@dataclass
class Experiment:
    """One cell: every choice that makes a row of a table."""

    seed: int = 0  # few-shot draw, random subset, pre-training
    pool: Pool = field(default_factory=Pool)
    retriever: Retriever = field(default_factory=Retriever)
    index: Index = field(default_factory=Index)
    query: Query = field(default_factory=Query)
    budget: Budget = field(default_factory=Budget)
    compute: Compute = field(default_factory=Compute)
    init: Init = field(default_factory=Init)
    pretrain: Pretrain = field(default_factory=Pretrain)
    finetune: Finetune = field(default_factory=Finetune)
    shot: Shot = field(default_factory=Shot)
    task: Task = field(default_factory=Task)
    hardware: Hardware = field(default_factory=Hardware)
    engine: Engine = field(default_factory=Engine)
    logger: Logger = field(default_factory=Logger)
    store: Storage = field(default_factory=Storage)
    leak: str = "report"  # copies of test images in a selection: report or remove
    table: str | None = None  # the named sweep this cell belongs to
    plan: bool = False  # say what would be done, and stop


def _one_of(key: str, value: str, values: Collection[str]) -> None:
    if value not in values:
        raise ConfigError(f"{key}={value}: must be one of {', '.join(values)}")


def _require(group: str, spec: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(spec, name) is None:
            raise ConfigError(f"{group}.{name} is not set: {group}={spec.kind} needs {group}.{name}=...")


def _positive(key: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{key}={value}: must be at least 1")
