"""The typed schema of an experiment: every setting is declared here once, with its own rules.

YAML files under conf/ hold values and nothing else. `sept.compose` turns them into a checked `Experiment`. A setting's
range stands where it is declared (`sept.ranges`); `check` of a group has the rules for several of its settings, and
`check_unused` refuses what would have no effect: not in a sweep, where another cell may use it.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sept import ranges
from sept.errors import ConfigError
from sept.ranges import MOST_BATCH, MOST_EPOCHS, MOST_SIDE, Number, one_of, require_unset, shown


@dataclass
class Model:
    """A timm model: its registered name, and constructor arguments that differ from timm's."""

    name: str = ranges.text("")
    args: dict[str, Any] = field(default_factory=dict)  # tried before any work: sept.capability


POOL_KINDS = ("folder", "webdataset", "zip", "parquet", "list", "yfcc")  # how the images of a source lie on disk
CLASSIFICATION_TASKS = ("imagefolder", "csv", "flowers102", "stanford_cars", "food101", "places365", "inat2017")
SIMILAR = ("sept", "union_topk", "classifier", "cluster")  # inits whose images are chosen by likeness to the task
DETECTION_TASKS = ("voc", "cityscapes", "logodet", "patterns_boxes")  # tasks with annotated boxes
SEGMENTATION_TASKS = ("voc_masks", "ade20k", "patterns_masks")  # tasks with a class for every pixel
SYNTHETIC_POOLS = ("patterns", "patterns_scenes", "patterns_wild")  # of the embedded world
SYNTHETIC_TASKS = ("patterns", "patterns_boxes", "patterns_masks")  # its tasks
LEAST_DRAWN_SIDE = 24  # pixels that show a motif
PUBLISHED = ("in1k_sup", "in1k_ssl")  # inits that start from a published checkpoint
STAGES = (  # whose artefacts the store keeps; sept.pipeline has their versions
    *("pool", "task", "retriever", "features", "index", "queries", "selection", "subset", "weights", "pretrain"),
    *("finetune", "detect", "segment"),
)

SHARE = Number(least=0, most=1, is_share=True)
COUNT = Number(whole=True, least=1, most=10**6)
SIDE = Number(whole=True, least=1, most=MOST_SIDE)
EPOCH = Number(whole=True, least=1, most=MOST_EPOCHS)
RATIO = Number(least=0.01, most=100)
LR_BATCH = 256  # images that the published base rate of iBOT is for
TOLERANCE = 1e-9  # of sums of decimal fractions
MOST_BLUR = 20  # pixels of a 224-px view
MOST_JITTER = 5  # times the published one: hue goes all the way round
RAND_AUGMENT = (  # timm's, in which a part that it does not know is left out in silence
    r"rand(-(m(10|[0-9])|n[1-9]|mstd\d+(\.\d+)?|mmax\d+|inc[01]|p(0(\.\d+)?|1(\.0)?)|t(weights|3aw?)))*"
)


@dataclass
class Source:
    """One source of a union of pools."""

    kind: str = ranges.choice("folder", POOL_KINDS)
    path: str | None = ranges.text(None)


@dataclass
class Pool:
    """The unlabelled images that are searched. kind: one of SYNTHETIC_POOLS, one of POOL_KINDS (on disk), or union."""

    name: str = ranges.text("")
    kind: str = ranges.choice("folder", (*SYNTHETIC_POOLS, "union", *POOL_KINDS))
    path: str | None = ranges.text(None)  # of a folder or an archive; of several shards with braces and globs
    sources: dict[str, Any] = field(default_factory=dict)  # union: Source by name, in the order of their rows
    without: list[str] = ranges.several([], ranges.Text())  # union: sources to do without
    images: int | None = ranges.whole(None, least=1)  # patterns: how many to draw
    side: int | None = ranges.side(None, least=LEAST_DRAWN_SIDE)  # patterns: pixels
    seed: int = ranges.seed()  # patterns: the world's seed
    curated: str | None = ranges.text(None)  # source the retriever is trained on; null: the whole pool
    max_unreadable: float = ranges.share(0.05, below=1)  # share of unreadable images above which embedding fails

    def __post_init__(self) -> None:
        """Sources as such: a typed mapping would take no further one from a command line."""
        for name, source in self.sources.items():
            if not isinstance(source, Source):
                unknown = set(source or {"nothing": 0}) - {"kind", "path"}
                if unknown:
                    raise ConfigError(f"pool.sources.{name}: {sorted(unknown)} given, needs kind and path")
                self.sources[name] = Source(**source)

    def check(self) -> None:
        if self.kind in SYNTHETIC_POOLS:
            _require("pool", self, ("images", "side"))
        elif self.kind == "union":
            self._check_union()
        else:
            _require("pool", self, ("path",))

    def check_unused(self) -> None:
        if self.kind in SYNTHETIC_POOLS:
            require_unset(self, "pool", ("path", "sources", "without"), f"pool.kind={self.kind} draws its images")
        elif self.kind == "union":
            require_unset(self, "pool", ("path",), "the sources of pool.kind=union have paths of their own")
        else:
            require_unset(self, "pool", ("sources", "without"), f"pool.kind={self.kind} is one source")

    def _check_union(self) -> None:
        for name in self.without:
            require_one_of("pool.without", name, self.sources)
        for name, source in self.kept().items():
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

    resize: int = ranges.side(256)
    crop: int = ranges.side(224)
    squash: bool = True  # resize to a square (SEPT's wording), else by the shorter side (iBOT's evaluation)


@dataclass
class IBotRecipe:
    """How a retriever is trained (iBOT)."""

    epochs: int = ranges.epochs(800, least=1)
    batch_size: int = ranges.batch(1024)
    lr: float = ranges.rate(5e-4)  # per 256 images
    min_lr: float = ranges.least_rate(1e-6)
    warmup_epochs: int = ranges.epochs(10)
    weight_decay: float = ranges.share(0.04)
    weight_decay_end: float = ranges.share(0.4)
    clip: float = ranges.clip(3.0)
    freeze_last_layer_epochs: int = ranges.epochs(1)
    momentum: float = ranges.share(0.996)
    drop_path_rate: float = ranges.share(0.1, below=1)
    out_dim: int = ranges.channels(8192)
    head_hidden_dim: int = ranges.channels(2048)
    head_bottleneck_dim: int = ranges.channels(256)
    student_temp: float = ranges.temperature(0.1)
    teacher_temp: float = ranges.temperature(0.07)
    warmup_teacher_temp: float = ranges.temperature(0.04)
    warmup_teacher_temp_epochs: int = ranges.epochs(30)
    center_momentum: float = ranges.share(0.9)
    pred_ratio: list[float] = ranges.several([0.0, 0.3], SHARE, fewest=1)
    pred_ratio_var: list[float] = ranges.several([0.0, 0.2], SHARE, fewest=1)
    side: int = ranges.side(224)
    global_scale: list[float] = ranges.pair(0.25, 1.0, above=0, most=1)
    local_crops: int = ranges.whole(10, most=100)
    local_side: int = ranges.side(96)
    local_scale: list[float] = ranges.pair(0.05, 0.25, above=0, most=1)
    blur_radius: list[float] = ranges.pair(0.1, 2.0, above=0, most=MOST_BLUR)
    jitter: float = ranges.real(
        1.0, least=0, most=MOST_JITTER
    )  # multiplies the published brightness .4, contrast .4, saturation .2, hue .1

    def check(self, prefix: str) -> None:
        """Also of a retriever that is read from a file: what is wrong is said wherever it stands."""
        require_rates(prefix, self.lr, self.batch_size / LR_BATCH, {"min_lr": self.min_lr})
        if len(self.pred_ratio) != len(self.pred_ratio_var):
            raise ConfigError(
                f"{prefix}.pred_ratio={shown(self.pred_ratio)} and {prefix}.pred_ratio_var="
                f"{shown(self.pred_ratio_var)}: one of each, in pairs"
            )
        for ratio, variance in zip(self.pred_ratio, self.pred_ratio_var, strict=True):
            if ratio - variance < -TOLERANCE or ratio + variance > 1 + TOLERANCE:
                raise ConfigError(f"{prefix}.pred_ratio={ratio} +- {variance} of an image leaves [0, 1]")


@dataclass
class Retriever:
    """The encoder that embeds pool and task: weights from a file, or trained with iBOT on the pool."""

    name: str = ranges.text("")
    model: Model = field(default_factory=Model)
    weights: str | None = ranges.text(None)  # a file; "sept:NAME" is one shipped with the package; null: train
    branch: str = ranges.choice("teacher", ("teacher", "student"))  # of a full iBOT checkpoint
    train: IBotRecipe = field(default_factory=IBotRecipe)
    preprocess: Preprocess = field(default_factory=Preprocess)
    batch_size: int = ranges.batch(256)  # of the embedding; no influence on the result
    seed: int = ranges.seed()

    def check(self) -> None:
        if self.preprocess.crop > self.preprocess.resize:
            raise ConfigError(
                f"retriever.preprocess.crop={self.preprocess.crop} is larger than "
                f"retriever.preprocess.resize={self.preprocess.resize}"
            )
        require_arguments("retriever.model", self.model)
        self.train.check("retriever.train")


EXACT = ("exact", "int8")  # ways to search that give the same lists


@dataclass
class Index:
    """How the pool's features are searched. exact: a streamed scan of every vector; int8: of an int8 copy, with the
    same result; ivf_sq8 and milvus: approximate."""

    name: str = ranges.choice("exact", (*EXACT, "ivf_sq8", "milvus"))
    nlist: int | None = ranges.whole(
        None, least=1
    )  # approximate: cells of the paper's index, fewer where the pool is small
    nprobe: int | None = ranges.whole(None, least=1)  # approximate: cells out of nlist that a query looks into
    uri: str | None = ranges.text(None)  # milvus: of a cluster; null: Milvus Lite, in a file
    sample: int | None = ranges.whole(
        None
    )  # approximate: queries whose lists are compared with the exact scan's; 0: none

    def check(self) -> None:
        if self.name in EXACT:
            return
        if self.nlist is None or self.nprobe is None or self.sample is None:
            raise ConfigError(f"index={self.name} needs index.nlist, index.nprobe and index.sample")
        if self.nprobe > self.nlist:
            raise ConfigError(f"index.nprobe={self.nprobe} must lie between 1 and index.nlist={self.nlist}")

    def check_unused(self) -> None:
        if self.name in EXACT:
            require_unset(
                self, "index", ("nlist", "nprobe", "uri", "sample"), f"index={self.name} looks at every image"
            )
        elif self.name != "milvus":
            require_unset(self, "index", ("uri",), f"index={self.name} lies in a file of the store")


@dataclass
class Query:
    """What of the task is looked up in the pool: its whole training images, or the boxes annotated in them."""

    name: str = ranges.choice("image", ("image", "instance"))
    path: str | None = ranges.text(None)  # search.py: an image or folder to look up instead of the task
    top: int = ranges.whole(20, least=1, most=1000)  # search.py: how many matches a looked-up image shows


@dataclass
class Budget:
    """How many pool images may be pre-trained on (SEPT's K)."""

    images: int = ranges.whole(0, least=1)


@dataclass
class Compute:
    """How long to pre-train: passes over the selection, or a number of FLOPs; exactly one."""

    epochs: int | None = ranges.epochs(None, least=1)
    flops: float | None = ranges.real(None, above=0, most=1e30)

    def check(self) -> None:
        if (self.epochs is None) == (self.flops is None):
            raise ConfigError(
                f"compute.epochs={self.epochs} and compute.flops={self.flops}: set exactly one, the other to null"
            )


@dataclass
class Init:
    """Where the fine-tuned weights start: the paper's columns."""

    name: str = ranges.choice("sept", ("rand_init", *PUBLISHED, "random", *SIMILAR))
    weights: str | None = ranges.text(None)  # in1k_sup, in1k_ssl: the published checkpoint
    source: str | None = ranges.text(
        None
    )  # random: a source of the pool that `share` of the images come from, the rest from others
    share: float | None = ranges.share(None)

    def check(self) -> None:
        if (self.source is None) != (self.share is None) or (self.source and self.name != "random"):
            raise ConfigError(
                f"init.source={self.source} and init.share={self.share}: set both or neither, and only with init=random"
            )
        if self.name in PUBLISHED and not self.weights:
            raise ConfigError(f"init={self.name} needs init.weights=FILE, the published checkpoint")

    def check_unused(self) -> None:
        if self.name not in PUBLISHED:
            require_unset(self, "init", ("weights",), f"init={self.name} starts from no file")


@dataclass
class Pretrain:
    """MoBy on the selection. Values and their sources: conf/pretrain/moby_swin_t.yaml."""

    name: str = ranges.text("")
    model: Model = field(default_factory=Model)
    side: int = ranges.side(224)
    batch_size: int = ranges.batch(512, least=2)
    lr: float = ranges.rate(1e-3)  # per `lr_batch` images
    lr_batch: int = ranges.batch(512)
    schedule: str = ranges.choice("cosine", ("cosine", "constant"))
    warmup_epochs: int = ranges.epochs(5)
    warmup_lr: float = ranges.least_rate(5e-7)
    min_lr: float = ranges.least_rate(5e-6)
    weight_decay: float = ranges.share(0.05)
    decay_bias_table: bool = True
    clip: float = ranges.clip(5.0)
    drop_path_rate: float = ranges.share(0.2, below=1)
    hidden_dim: int = ranges.channels(4096)
    out_dim: int = ranges.channels(256)
    queue: int = ranges.whole(4096, least=1, most=2**20)
    temperature: float = ranges.temperature(0.2)
    momentum: float = ranges.share(0.99)
    crop_scale: list[float] = ranges.pair(0.08, 1.0, above=0, most=1)
    blur: list[float] = ranges.pair(1.0, 0.1, ordered=False, least=0, most=1)  # probability, view 1 and 2
    blur_radius: list[float] = ranges.pair(0.1, 2.0, above=0, most=MOST_BLUR)
    solarise: list[float] = ranges.pair(0.0, 0.2, ordered=False, least=0, most=1)
    jitter: float = ranges.real(
        1.0, least=0, most=MOST_JITTER
    )  # multiplies the published brightness .4, contrast .4, saturation .2, hue .1
    grayscale: float = ranges.share(0.2)
    store_side: int = ranges.side(256)  # shorter side at which the selection is stored locally

    def check(self) -> None:
        require_arguments("pretrain.model", self.model)
        slowest = {"warmup_lr": self.warmup_lr, "min_lr": self.min_lr}
        require_rates("pretrain", self.lr, self.batch_size / self.lr_batch, slowest)
        if self.queue < self.batch_size:
            raise ConfigError(
                f"pretrain.queue={self.queue} does not hold one batch of keys: pretrain.batch_size={self.batch_size}"
            )


@dataclass
class Finetune:
    """Classifier, detector or segmenter on the task's labels. What all have; values come with a recipe below."""

    name: str = ranges.text("")
    seed: int = ranges.seed()
    epochs: int = ranges.epochs(100, least=1)
    batch_size: int = ranges.batch(64)
    weight_decay: float = ranges.share(0.05)
    drop_path_rate: float = ranges.share(0.1, below=1)
    test_every: int = ranges.epochs(10, least=1)  # epochs

    def check(self) -> None:
        """What several settings of a recipe say together."""


@dataclass
class Classify(Finetune):
    """The classifier. Values and their sources: conf/finetune/classify.yaml."""

    side: int = ranges.side(224)
    lr: float = ranges.rate(5e-3)  # per `lr_batch` images
    lr_batch: int = ranges.batch(512)
    warmup_epochs: int = ranges.epochs(10)
    warmup_lr: float = ranges.least_rate(2.5e-7)  # per `lr_batch` images
    min_lr: float = ranges.least_rate(2.5e-7)  # per `lr_batch` images
    layer_decay: float = ranges.share(0.9, above=0)
    clip: float = ranges.clip(5.0)
    crop_scale: list[float] = ranges.pair(0.08, 1.0, above=0, most=1)
    rand_augment: str | None = ranges.text("rand-m9-mstd0.5-inc1", form=RAND_AUGMENT, example="rand-m9-mstd0.5-inc1")
    erasing: float = ranges.share(0.25)
    mixup: float = ranges.share(0.8)
    cutmix: float = ranges.share(1.0)
    mix_prob: float = ranges.share(1.0)
    smoothing: float = ranges.share(0.1, below=1)

    def check(self) -> None:
        slowest = {"warmup_lr": self.warmup_lr, "min_lr": self.min_lr}
        require_rates("finetune", self.lr, self.batch_size / self.lr_batch, slowest)


@dataclass
class Detect(Finetune):
    """Faster R-CNN with FPN on the backbone. Values and their sources: conf/finetune/detect.yaml."""

    lr: float = ranges.rate(1e-4)
    milestones: list[int] = ranges.several(
        [27, 33], EPOCH, strictly=True
    )  # epochs at whose end the rate drops to a tenth
    warmup_steps: int = ranges.whole(500, most=MOST_EPOCHS)
    warmup_factor: float = ranges.share(1e-3, above=0)  # of the rate at step 0
    short_sides: list[int] = ranges.several(range(480, 801, 32), SIDE, fewest=1)  # one is drawn for an image
    long_side: int = ranges.side(1333)  # at most
    test_short_side: int = ranges.side(800)
    fpn_width: int = ranges.channels(256)
    head_width: int = ranges.channels(1024)
    anchor_sides: list[int] = ranges.several([32, 64, 128, 256, 512], SIDE, strictly=True)  # one a level of the pyramid
    anchor_ratios: list[float] = ranges.several([0.5, 1.0, 2.0], RATIO, fewest=1)
    rpn_samples: int = ranges.whole(256, least=2, most=10**6)
    proposals: list[int] = ranges.several([2000, 1000], COUNT, count=2)  # of a level before, of an image after NMS
    roi_samples: int = ranges.whole(512, least=4, most=10**6)
    score: float = ranges.share(0.05, below=1)  # least, of a detection
    nms: float = ranges.share(0.5, above=0)
    detections: int = ranges.whole(100, least=1, most=10**5)  # at most, of an image

    def check(self) -> None:
        super().check()
        if len(self.anchor_sides) != 5:
            raise ConfigError(f"finetune.anchor_sides={self.anchor_sides}: the pyramid has 5 levels, one side each")
        for name, side in (("short_sides", max(self.short_sides)), ("test_short_side", self.test_short_side)):
            if side > self.long_side:
                raise ConfigError(f"finetune.{name} of {side} pixels is more than finetune.long_side={self.long_side}")


@dataclass
class Segment(Finetune):
    """Semantic segmentation with UPerNet on the backbone. Values and their sources: conf/finetune/segment.yaml."""

    lr: float = ranges.rate(6e-5)
    warmup_steps: int = ranges.whole(1500, most=MOST_EPOCHS)
    warmup_factor: float = ranges.share(1e-6, above=0)  # of the rate at step 0
    side: int = ranges.side(512)  # of a training crop; the shorter side of a test image
    long_side: int = ranges.side(2048)  # at most, of a test image
    scale: list[float] = ranges.pair(0.5, 2.0, above=0, most=10)  # training: times these two, before the crop
    decoder_width: int = ranges.channels(512)
    dropout: float = ranges.share(0.1, below=1)  # before the classifiers, of whole channels
    auxiliary: float = ranges.real(0.4, least=0, most=10)  # weight of the loss at the map before the last

    def check(self) -> None:
        super().check()
        if self.batch_size < 2:
            raise ConfigError(f"finetune.batch_size={self.batch_size}: batch norm needs at least 2 images")
        if self.side > self.long_side:
            raise ConfigError(f"finetune.side={self.side} is more than finetune.long_side={self.long_side}")


RECIPES: dict[str, type[Finetune]] = {"classify": Classify, "detect": Detect, "segment": Segment}


@dataclass
class Shot:
    """How many labelled images a class has: a number, a share of what there are, or null and null for all."""

    per_class: int | None = ranges.whole(5, least=1)
    share: float | None = ranges.share(None, above=0)

    def check(self) -> None:
        if self.share is not None and self.per_class is not None:
            raise ConfigError(f"shot.share={self.share}: a share in (0, 1], with shot.per_class=null")


@dataclass
class Task:
    """The labelled task. kind: synthetic, or on disk with classes, boxes or masks."""

    name: str = ranges.text("")
    kind: str = ranges.choice(
        "imagefolder", dict.fromkeys((*SYNTHETIC_TASKS, *CLASSIFICATION_TASKS, *DETECTION_TASKS, *SEGMENTATION_TASKS))
    )
    path: str | None = ranges.text(None)  # the data set's folder or the one that holds it; csv: the file
    domain: str | None = ranges.text(None)  # patterns
    train_per_class: int | None = ranges.whole(None, least=1)  # patterns
    test_per_class: int | None = ranges.whole(None, least=1)  # patterns
    side: int | None = ranges.side(None, least=LEAST_DRAWN_SIDE)  # patterns: pixels
    test_fraction: float = ranges.share(
        0.2, above=0, below=1
    )  # imagefolder or csv without a test split: share of each class held out
    subset: str | None = ranges.choice(
        None, ("plantae", "insecta", "all13")
    )  # inat2017: plantae, insecta or all13, whose species are drawn from
    class_list: str | None = ranges.text(None)  # inat2017: a file of species instead of the draw, one a line
    images: int | None = ranges.whole(None, least=1)  # boxes and masks: training images that are drawn
    seed: int = ranges.seed()  # of the drawing, of the split or of the draw of classes

    def check(self) -> None:
        if self.kind in SYNTHETIC_TASKS:
            _require("task", self, ("domain", "train_per_class", "test_per_class", "side"))
        else:
            _require("task", self, ("path",))
        if self.kind == "inat2017" and self.class_list is None:
            _require("task", self, ("subset",))
        if self.kind in (*DETECTION_TASKS, *SEGMENTATION_TASKS):
            _require("task", self, ("images",))

    def check_unused(self) -> None:
        if self.kind in SYNTHETIC_TASKS:
            require_unset(self, "task", ("path",), f"task.kind={self.kind} draws its images")
        else:
            require_unset(self, "task", ("domain",), f"task.kind={self.kind} lies on disk")
        if self.kind != "inat2017":
            require_unset(self, "task", ("subset", "class_list"), "species are drawn by task.kind=inat2017 alone")
        if self.kind not in (*DETECTION_TASKS, *SEGMENTATION_TASKS):
            require_unset(self, "task", ("images",), "a task of classes takes shot=5shot, 10shot, half or full")


@dataclass
class Hardware:
    """Where and how the work runs; never part of a result's identity, except `precision` and `compile`."""

    accelerator: str = ranges.choice("auto", ("auto", "cpu", "cuda"))
    devices: int = ranges.whole(
        1, least=1, most=1024
    )  # that share a self-supervised training: GPUs, or processes on CPUs
    workers: Any = ranges.whole(
        "auto", words=("auto",)
    )  # data loaders of each device; 0 reads in the training process; auto: cores a GPU, 0 on CPUs
    chunk: Any = ranges.whole(
        "auto", least=1, most=MOST_BATCH, words=("auto",)
    )  # images encoded at a time where a batch does not fit; null: the whole batch; auto: what fits
    compile: bool = False  # encoders and colours of self-supervised trainings by torch.compile; rounds, so part of keys
    threads: int | None = ranges.whole(None, least=1, most=1024)  # of torch; null: as many as cores
    search_mib: int = ranges.whole(
        1024, least=1, most=2**24
    )  # memory for what a search finds, beside two blocks of features
    precision: str = ranges.choice("auto", ("auto", "32", "bf16-mixed"))  # auto: bf16-mixed on GPUs, 32 on CPUs
    checkpoint_every_s: float = ranges.real(60.0, least=0, most=10**7)  # of a training stage

    def check(self) -> None:
        if self.workers is None:
            raise ConfigError("hardware.workers=null: must be auto or a whole number; 0 reads in the training process")


@dataclass
class Engine:
    """Who embeds the pool: local, this machine's hardware.devices; ray, the workers of a Ray cluster."""

    name: str = ranges.choice("local", ("local", "ray"))
    address: str | None = ranges.text(None)  # ray: HOST:PORT; null: the cluster this machine belongs to
    workers: int | None = ranges.whole(None, least=1, most=10**5)  # ray: at most so many; null: as many as fit

    def check_unused(self) -> None:
        if self.name == "local":
            require_unset(self, "engine", ("address", "workers"), "engine=local embeds on this machine")


@dataclass
class Logger:
    """Where curves go beside the CSV file that every training writes."""

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
    """The artefact store: where, and whether it may compute."""

    root: str = ranges.text("store")
    mode: str = ranges.choice("reuse", ("reuse", "read-only"))
    force: list[str] = ranges.several([], ranges.Text(STAGES))  # stages to compute again


@dataclass
class Experiment:
    """One cell: every choice that makes a row of a table."""

    seed: int = ranges.seed()  # few-shot draw, random subset, pre-training
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
    leak: str = ranges.choice("report", ("report", "remove"))  # copies of test images in a selection: report or remove
    table: str | None = ranges.text(None)  # the named sweep this cell belongs to
    plan: bool = False  # say what would be done, and stop


def require_one_of(key: str, value: str, values: Collection[str]) -> None:
    """ConfigError, which names the nearest, for a value that is none of these."""
    if value not in values:
        raise ConfigError(f"{key}={value}: must be {one_of(value, values)}")


def require_arguments(prefix: str, model: Model) -> None:
    """ConfigError for an argument that is null: timm leaves it out."""
    for name, value in model.args.items():
        if value is None:
            raise ConfigError(f"{prefix}.args.{name}=null would have no effect: timm takes its own; leave it out")


def require_rates(prefix: str, peak: float, times: float, others: dict[str, float]) -> None:
    """ConfigError for a peak rate that is, times what a batch makes of it, above 1, or below one of the others."""
    if peak * times > 1:
        raise ConfigError(f"{prefix}.lr={peak} is {peak * times:g} for this batch: a step would be larger than weights")
    for name, rate in others.items():
        if rate > peak:
            raise ConfigError(f"{prefix}.{name}={rate} is more than {prefix}.lr={peak}, the highest rate")


def _require(group: str, spec: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(spec, name) is None:
            raise ConfigError(f"{group}.{name} is not set: {group}={spec.kind} needs {group}.{name}=...")
