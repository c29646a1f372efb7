"""Who chooses the images to pre-train on, one file each. No torch here: what chooses is imported when it does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sept import ranges
from sept.errors import ConfigError
from sept.runtime.named import load


@dataclass
class Selector:
    """Who chooses the pool images to pre-train on."""

    name: str = ranges.text("")  # in SELECTORS

    def check(self) -> None:
        """What several settings say together; raises ConfigError."""


@dataclass
class RandomSubset(Selector):
    """A uniform sample of the pool, or one in which a share of the images comes from one source of it."""

    source: str | None = ranges.text(None)  # of the pool: `share` of the images come from it, the rest from others
    share: float | None = ranges.share(None)

    def check(self) -> None:
        if (self.source is None) != (self.share is None):
            raise ConfigError(f"selector.source={self.source} and selector.share={self.share}: set both or neither")


@dataclass(frozen=True)
class Entry:
    """A selector. choose: "module:function" of what chooses by likeness to the task: it is called with a
    `SelectionContext` and gives `budget` distinct rows in the order chosen, a function of the seed, ties by pool row,
    as (budget,) int64 or as a `Selection`, which says which query brought each. None: it looks at no features."""

    choose: str | None
    settings: type[Selector] = Selector

    @property
    def searches(self) -> bool:
        """Whether it reads the embedded pool and the embedded task."""
        return self.choose is not None

    def load(self) -> Callable[..., Any]:
        assert self.choose is not None
        found: Callable[..., Any] = load(self.choose)
        return found


SELECTORS = {
    "sept": Entry("sept.selectors.algorithm1:algorithm1"),
    "union_topk": Entry("sept.selectors.union_topk:union_topk"),
    "classifier": Entry("sept.selectors.classifier:classifier"),
    "cluster": Entry("sept.selectors.cluster:cluster"),
    "random": Entry(None, RandomSubset),
}
