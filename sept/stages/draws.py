"""Selections without features: a random subset or a whole source, and the order their rows are drawn from."""

from dataclasses import dataclass

import numpy as np

from sept.data.pool import ConcatPool
from sept.errors import ConfigError
from sept.retrieval.select import random_subset
from sept.selectors import RandomSubset, Selector


@dataclass(frozen=True)
class RandomSpec:
    """A random subset, and the source that a share of it comes from."""

    selector: Selector
    budget: int
    seed: int


@dataclass(frozen=True)
class SourceSpec:
    """All images of a source; null: of the whole pool."""

    source: str | None


@dataclass(frozen=True)
class Draw:
    """A random draw of `wanted` rows: the first ones of an order of `rows` determined by the seed."""

    rows: np.ndarray
    wanted: int
    seed: int

    def first(self) -> np.ndarray:
        return self.rows[random_subset(len(self.rows), self.wanted, self.seed)]

    def after(self, seen: int, missing: int) -> np.ndarray:
        """The next rows in the order, to replace this many of the `seen` rows before them. Raises ConfigError."""
        if seen == len(self.rows):
            found = self.wanted - missing
            raise ConfigError(f"budget.images={self.wanted:,} but the pool holds only {found:,} readable images")
        return self.rows[random_subset(len(self.rows), min(len(self.rows), seen + missing), self.seed)][seen:]


def draws(spec: object, pool: ConcatPool) -> list[Draw] | None:
    """The draws of a random subset, in order: a reader replaces an image that cannot be decoded by the next one. None
    for any other selection."""
    return parts(pool, spec) if isinstance(spec, RandomSpec) else None


def parts(pool: ConcatPool, spec: RandomSpec) -> list[Draw]:
    """The row ranges to draw from: the whole pool, or one source and all others."""
    everything, settings = np.arange(len(pool)), spec.selector
    assert isinstance(settings, RandomSubset)
    if settings.source is None or settings.share is None:
        return [Draw(everything, spec.budget, spec.seed)]
    inside, count = pool.rows_of(settings.source), round(settings.share * spec.budget)
    others = np.setdiff1d(everything, inside, assume_unique=True)
    parts = [Draw(inside, count, spec.seed), Draw(others, spec.budget - count, spec.seed)]
    return [part for part in parts if part.wanted]
