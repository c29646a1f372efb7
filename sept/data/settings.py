"""Settings of images: the pool, the labelled task, its shots and what of it is looked up."""

from dataclasses import dataclass, field
from typing import Any

from sept import ranges
from sept.errors import ConfigError
from sept.ranges import require_one_of, require_set, require_unset

POOL_KINDS = ("folder", "webdataset", "zip", "parquet", "list", "yfcc")  # how the images of a source lie on disk
VECTORS = "vectors"  # kind of a pool, and name of a query, of vectors that were made elsewhere
OWN_TASKS = ("imagefolder", "csv", "parquet")  # kinds of a person's own labelled images
CLASSIFICATION_TASKS = (*OWN_TASKS, "flowers102", "stanford_cars", "food101", "places365", "inat2017")
DETECTION_TASKS = ("voc", "cityscapes", "logodet", "patterns_boxes")  # tasks with annotated boxes
SEGMENTATION_TASKS = ("voc_masks", "ade20k", "patterns_masks")  # tasks with a class for every pixel
SYNTHETIC_POOLS = ("patterns", "patterns_scenes", "patterns_wild")  # of the embedded world
SYNTHETIC_TASKS = ("patterns", "patterns_boxes", "patterns_masks")  # its tasks
LEAST_DRAWN_SIDE = 24  # pixels that show a motif


@dataclass
class Source:
    """One source of a union of pools."""

    kind: str = ranges.choice("folder", POOL_KINDS)
    path: str | None = ranges.text(None)


@dataclass
class Pool:
    """The unlabelled images that are searched. kind: of SYNTHETIC_POOLS, of POOL_KINDS (on disk), union or VECTORS.

    name: what it is called in rows, tables and folders, no part of a key; if empty, that of its path is taken when a
    config is loaded.
    """

    name: str = ranges.text("")
    kind: str = ranges.choice("folder", (*SYNTHETIC_POOLS, "union", *POOL_KINDS, VECTORS))
    path: str | None = ranges.text(None)  # of a folder or an archive; of several shards with braces and globs
    sources: dict[str, Any] = field(default_factory=dict)  # union: Source by name, in the order of their rows
    without: list[str] = ranges.several([], ranges.Text())  # union: sources to do without
    images: int | None = ranges.whole(None, least=1)  # patterns: how many to draw
    side: int | None = ranges.side(None, least=LEAST_DRAWN_SIDE)  # patterns: pixels
    seed: int = ranges.seed()  # patterns: the world's seed
    curated: str | None = ranges.text(None)  # source the retriever is trained on; null: the whole pool
    max_unreadable: float = ranges.share(0.05, below=1)  # share of unreadable images above which embedding fails
    # Where labels and captions are, for methods that learn from them (`sept.data.sources.annotations`): the folder an
    # image lies in; the suffix of a file beside it in its archive; a column of a parquet file. auto: as the kind has
    # it; null: nowhere.
    labels: str | None = ranges.text("auto")
    captions: str | None = ranges.text("auto")  # or from_labels
    max_unannotated: float = ranges.share(
        0.05, below=1
    )  # share of the chosen images without, above which it is refused

    def __post_init__(self) -> None:
        """Sources as such: a typed mapping would take no further one from a command line."""
        for name, source in self.sources.items():
            if not isinstance(source, Source):
                unknown = sorted({*source} - {"kind", "path"}) if isinstance(source, dict) and source else [source]
                if unknown:
                    raise ConfigError(f"pool.sources.{name}: {unknown[0]} given, needs {{kind:KIND,path:PATH}}")
                self.sources[name] = Source(**source)

    def check(self) -> None:
        if self.kind in SYNTHETIC_POOLS:
            require_set("pool", self, ("images", "side"))
        elif self.kind == "union":
            self._check_union()
        else:
            require_set("pool", self, ("path",))

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
class Query:
    """What is looked up in the pool: of the task whole training images or annotated boxes, or vectors of a file."""

    name: str = ranges.choice("image", ("image", "instance", VECTORS))
    path: str | None = ranges.text(None)  # vectors: the file; else, of search.py: an image or folder to look up instead
    text: str | None = ranges.text(None)  # search.py: words to look up, of a retriever that embeds text
    top: int = ranges.whole(20, least=1, most=1000)  # search.py: how many matches a looked-up image shows

    @property
    def looks_up(self) -> bool:
        """Whether images or words are looked up, and nothing is selected."""
        return self.text is not None or (self.path is not None and self.name != VECTORS)

    def check(self) -> None:
        if self.name == VECTORS and self.path is None:
            raise ConfigError(f"query.path is not set: query={self.name} needs query.path=FILE.npy or FILE.parquet")
        if self.path is not None and self.text is not None:
            raise ConfigError(f"query.path={self.path} and query.text={self.text}: look up one at a time")


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
    """The labelled task. kind: synthetic, or on disk with classes, boxes or masks. name: as of a `Pool`."""

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
            require_set("task", self, ("domain", "train_per_class", "test_per_class", "side"))
        else:
            require_set("task", self, ("path",))
        if self.kind == "inat2017" and self.class_list is None:
            require_set("task", self, ("subset",))
        if self.kind in (*DETECTION_TASKS, *SEGMENTATION_TASKS):
            require_set("task", self, ("images",))

    def check_unused(self) -> None:
        if self.kind in SYNTHETIC_TASKS:
            require_unset(self, "task", ("path",), f"task.kind={self.kind} draws its images")
        else:
            require_unset(self, "task", ("domain",), f"task.kind={self.kind} lies on disk")
        if self.kind != "inat2017":
            require_unset(self, "task", ("subset", "class_list"), "species are drawn by task.kind=inat2017 alone")
        if self.kind not in (*DETECTION_TASKS, *SEGMENTATION_TASKS):
            require_unset(self, "task", ("images",), "a task of classes takes shot=5shot, 10shot, half or full")
