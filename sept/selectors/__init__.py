"""Selectors of the images to pre-train on, one file each. No torch here: a selector's function is imported on use."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sept import ranges
from sept.errors import ConfigError
from sept.runtime.named import load


@dataclass
class Selector:
    """What chooses the pool images to pre-train on."""

    name: str = ranges.text("")  # in SELECTORS

    def check(self) -> None:
        """Rules for several settings together; raises ConfigError."""


@dataclass
class Ordered(Selector):
    """A selector that puts the images in one order, of which a selection is the beginning, whatever its budget."""

    # Cosine distance of the retriever's vectors below which an image is skipped as a near-duplicate of one chosen
    # before it; the next in the order takes its place. null: none is skipped.
    min_distance: float | None = ranges.real(None, least=1e-6, most=1)


@dataclass
class SimCore(Ordered):
    """SimCore (Kim et al. 2023). Values and their sources: conf/selector/simcore.yaml."""

    clusters: int = ranges.whole(100, least=1)  # of the task's vectors; their centres are what is looked up
    stop: float = ranges.share(0.95, above=0)  # budget=auto: share of the first round's mean similarity to stay above


@dataclass
class RandomSubset(Selector):
    """A uniform sample of the pool, or one in which a share of the images comes from one source of it."""

    source: str | None = ranges.text(None)  # source of the pool that `share` of the images come from
    share: float | None = ranges.share(None)

    def check(self) -> None:
        if (self.source is None) != (self.share is None):
            raise ConfigError(f"selector.source={self.source} and selector.share={self.share}: set both or neither")


@dataclass(frozen=True)
class Entry:
    """A selector. choose: "module:function" that chooses by similarity to the task: called with a `SelectionContext`,
    it returns `budget` distinct rows in the order chosen, determined by the seed, ties by pool row, as (budget,) int64
    or as a `Selection`, which also has the query of each. None: it uses no features. selects: whether it chooses from
    the pool; else the pre-training images are the task's alone. stops: whether it finds its own number of images for
    `budget.images=null`."""

    choose: str | None
    settings: type[Selector] = Selector
    selects: bool = True
    stops: bool = False

    @property
    def searches(self) -> bool:
        """Whether it uses the embedded pool and the embedded task."""
        return self.choose is not None

    def load(self) -> Callable[..., Any]:
        assert self.choose is not None
        found: Callable[..., Any] = load(self.choose)
        return found


SELECTORS = {
    "sept": Entry("sept.selectors.algorithm1:algorithm1", Ordered),
    "simcore": Entry("sept.selectors.simcore:simcore", SimCore, stops=True),
    "union_topk": Entry("sept.selectors.union_topk:union_topk"),
    "classifier": Entry("sept.selectors.classifier:classifier", Ordered),
    "cluster": Entry("sept.selectors.cluster:cluster"),
    "random": Entry(None, RandomSubset),
    "target_only": Entry(None, selects=False),
}
