"""The typed schema of an experiment, and `load`, which turns a composed config into a checked `Experiment`.

YAML files under conf/ hold values and nothing else; every field is declared here once, so a misspelt
or mistyped value is refused when the config is composed. Nothing below `train.py` sees a DictConfig.
"""

import difflib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from sept.errors import ConfigError

CONF = Path(__file__).resolve().parent.parent / "conf"


@dataclass
class Model:
    """A timm model: its registered name, and constructor arguments that differ from timm's."""

    name: str = ""
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class Pool:
    """The unlabelled images that are searched. kind: patterns (drawn), folder or webdataset (on disk)."""

    name: str = ""
    kind: str = "folder"
    path: str | None = None  # of a folder, or of tar shards (braces and globs allowed)
    images: int | None = None  # patterns: how many to draw
    side: int | None = None  # patterns: pixels
    seed: int = 0  # patterns: the world's seed
    curated: str | None = None  # source the retriever is trained on; null: the whole pool
    max_unreadable: float = 0.05  # share of unreadable images above which embedding fails

    def check(self) -> None:
        _one_of("pool.kind", self.kind, ("patterns", "folder", "webdataset"))
        if self.kind == "patterns":
            _require("pool", self, ("images", "side"))
        else:
            _require("pool", self, ("path",))
        if not 0 <= self.max_unreadable < 1:
            raise ConfigError(f"pool.max_unreadable={self.max_unreadable} is a share: it must lie in [0, 1)")


@dataclass
class Preprocess:
    """What an image goes through before the retrieval encoder: the same for pool and task."""

    resize: int = 256
    crop: int = 224
    squash: bool = True  # resize to a square (SEPT's wording), else by the shorter side (iBOT's evaluation)


@dataclass
class IBotRecipe:
    """How a retriever is trained (iBOT). Fractions of an epoch are allowed in none of the fields."""

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


@dataclass
class Index:
    """How the pool's features are searched. Exact: a streamed scan of every vector."""

    name: str = "exact"

    def check(self) -> None:
        _one_of("index.name", self.name, ("exact",))


@dataclass
class Query:
    """What of the task is looked up in the pool: its whole training images."""

    name: str = "image"
    path: str | None = None  # search.py: an image or folder to look up instead of the task
    top: int = 20  # search.py: how many matches a looked-up image shows

    def check(self) -> None:
        _one_of("query.name", self.name, ("image",))


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


@dataclass
class Init:
    """Where the fine-tuned weights start: the paper's columns."""

    name: str = "sept"
    weights: str | None = None  # in1k_sup, in1k_ssl: the published checkpoint

    def check(self) -> None:
        _one_of("init.name", self.name, ("rand_init", "in1k_sup", "in1k_ssl", "random", "sept"))
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
        if self.queue < self.batch_size:
            raise ConfigError(
                f"pretrain.queue={self.queue} does not hold one batch of keys: pretrain.batch_size={self.batch_size}"
            )


@dataclass
class Finetune:
    """The classifier. Values and their sources: conf/finetune/classify.yaml."""

    name: str = ""
    seed: int = 0
    side: int = 224
    epochs: int = 100
    batch_size: int = 64
    lr: float = 5e-3  # per `lr_batch` images
    lr_batch: int = 512
    warmup_epochs: int = 10
    warmup_lr: float = 2.5e-7  # per `lr_batch` images
    min_lr: float = 2.5e-7  # per `lr_batch` images
    weight_decay: float = 0.05
    layer_decay: float = 0.9
    clip: float = 5.0
    drop_path_rate: float = 0.1
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"
    erasing: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_prob: float = 1.0
    smoothing: float = 0.1
    test_every: int = 10  # epochs


@dataclass
class Shot:
    """How many labelled images a class has: a number, or null for all."""

    per_class: int | None = 5

    def check(self) -> None:
        if self.per_class is not None:
            _positive("shot.per_class", self.per_class)


@dataclass
class Task:
    """The labelled task. kind: patterns (drawn) or imagefolder (on disk)."""

    name: str = ""
    kind: str = "imagefolder"
    path: str | None = None
    domain: str | None = None  # patterns
    train_per_class: int | None = None  # patterns
    test_per_class: int | None = None  # patterns
    side: int | None = None  # patterns: pixels
    test_fraction: float = 0.2  # imagefolder without train/ and test/: share of each class held out
    seed: int = 0  # of the drawing or of the split

    def check(self) -> None:
        _one_of("task.kind", self.kind, ("patterns", "imagefolder"))
        if self.kind == "patterns":
            _require("task", self, ("domain", "train_per_class", "test_per_class", "side"))
        else:
            _require("task", self, ("path",))


@dataclass
class Hardware:
    """Where and how the work runs; never part of a result's identity, except `precision`."""

    accelerator: str = "auto"
    workers: int = 0  # of data loaders; 0 reads in the training process
    threads: int | None = None  # of torch; null: as many as cores
    precision: str = "auto"  # auto: bf16-mixed on GPUs, 32 on CPUs
    checkpoint_every_s: float = 60.0  # of a training stage

    def check(self) -> None:
        _one_of("hardware.accelerator", self.accelerator, ("auto", "cpu", "cuda"))
        _one_of("hardware.precision", self.precision, ("auto", "32", "bf16-mixed"))


@dataclass
class Logger:
    """Where curves go beside the CSV file that every training writes."""

    name: str = "csv"
    project: str = "sept"
    mode: str = "auto"  # wandb: auto is online when there is a key, else offline

    def check(self) -> None:
        _one_of("logger.name", self.name, ("csv", "wandb"))
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
    logger: Logger = field(default_factory=Logger)
    store: Storage = field(default_factory=Storage)
    table: str | None = None  # the named sweep this cell belongs to
    plan: bool = False  # say what would be done, and stop


def load(cfg: Any, expanded: bool = True) -> Experiment:
    """The checked `Experiment` of a composed config; `expanded` says that a sweep launched it.

    Raises ConfigError in one line for an unknown field, a wrong type or value, a table that did not
    expand, and choices that contradict each other.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

    table = OmegaConf.select(cfg, "table")
    if table is not None and not expanded:
        raise ConfigError(f"table={table} did not expand into cells: write `+table={table}`, one table a command")
    try:
        # Merging again into a fresh schema refuses what `+field=` smuggled past Hydra.
        typed = OmegaConf.merge(OmegaConf.structured(Experiment), cfg)
        experiment = OmegaConf.to_object(typed)
    except ConfigKeyError as error:
        raise ConfigError(unknown_name(str(error.full_key))) from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error.msg).splitlines()[0]}") from None
    assert isinstance(experiment, Experiment)
    check(experiment)
    return experiment


def check(e: Experiment) -> None:
    """Each group's own rules, then those across groups; raises ConfigError."""
    for item in fields(e):
        group = getattr(e, item.name)
        if hasattr(group, "check"):
            group.check()
    crop = e.retriever.preprocess
    if crop.crop > crop.resize:
        raise ConfigError(
            f"retriever.preprocess.crop={crop.crop} is larger than retriever.preprocess.resize={crop.resize}"
        )
    if e.init.name in ("random", "sept") and e.budget.images < e.pretrain.batch_size:
        raise ConfigError(
            f"budget.images={e.budget.images} is less than one batch: pretrain.batch_size={e.pretrain.batch_size}"
        )


def register() -> None:
    """Make the schema known to Hydra, which types every group file with it."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Experiment)


def check_overrides(overrides: list[str]) -> None:
    """Refuse a command line that names an unknown key or option, naming the nearest valid one."""
    for override in overrides:
        key, equals, value = override.partition("=")
        key = key.lstrip("+~").partition("@")[0]
        if not equals or key.startswith("hydra") or key.startswith("-"):
            continue
        options = _options(key)
        if options:
            for choice in value.split(","):
                if choice not in options and choice != "null":
                    raise ConfigError(f"{key}={choice}: no such option; " + _nearest(choice, options))
        elif key not in known_names() and ".model.args." not in key:
            raise ConfigError(unknown_name(key))


def known_names() -> list[str]:
    """Every key that a command line may set: `seed`, `pool`, `pool.path`, ..."""
    return ["experiment", "table", *_names(Experiment, "")]


def unknown_name(key: str) -> str:
    """One line that refuses `key` and names the nearest valid keys."""
    return f"{key}: no such setting; " + _nearest(key, known_names())


def _names(cls: type, prefix: str) -> list[str]:
    names = []
    for item in fields(cls):
        names.append(prefix + item.name)
        if is_dataclass(item.type):
            names += _names(item.type, f"{prefix}{item.name}.")  # type: ignore[arg-type]
    return names


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml")) if group.isidentifier() else []


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return "did you mean " + " or ".join(close) + "?" if close else "known are " + ", ".join(names[:20])


def _one_of(key: str, value: str, values: tuple[str, ...]) -> None:
    if value not in values:
        raise ConfigError(f"{key}={value}: must be one of {', '.join(values)}")


def _require(group: str, spec: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(spec, name) is None:
            raise ConfigError(f"{group}.{name} is not set: {group}={spec.kind} needs {group}.{name}=...")


def _positive(key: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{key}={value}: must be at least 1")
