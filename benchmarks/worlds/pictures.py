"""What a world is made of before it is files: pictures with their kind and source, drawn and thinned by seed."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from PIL import Image

THUMBNAIL = 8  # px
ALIKE = 3.0  # of 255: root mean square between thumbnails of what counts as a copy
BLOCK = 1_000  # thumbnails that are compared at a time

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Picture:
    """An image with what it shows: its kind, and the family, theme or file it was made of."""

    image: Image.Image
    kind: str
    source: str


@dataclass
class World:
    """A pool and a task. `kind` is the kind that the task's images have; classes are names of folders."""

    name: str
    kind: str
    pool: list[Picture]
    train: dict[str, list[Picture]]
    test: dict[str, list[Picture]]
    removed: dict[str, int] = field(default_factory=dict)


def spread(items: Sequence[T], by: Callable[[T], Hashable], count: int, rng: np.random.Generator) -> list[T]:
    """At most `count` items in random order, with as equal a number of each value of `by` as there are."""
    shuffled = [items[i] for i in rng.permutation(len(items))]
    seen: Counter[Hashable] = Counter()
    turns = []
    for item in shuffled:
        turns.append(seen[by(item)])
        seen[by(item)] += 1
    order = sorted(range(len(shuffled)), key=turns.__getitem__)  # stable
    return [shuffled[i] for i in order[:count]]


def grouped(items: Iterable[T], by: Callable[[T], str]) -> dict[str, list[T]]:
    groups = defaultdict(list)
    for item in items:
        groups[by(item)].append(item)
    return dict(sorted(groups.items()))


def thumbnails(pictures: Sequence[Picture]) -> np.ndarray:
    """(N, 192) float32: each picture in colour at 8 x 8."""
    small = [each.image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX) for each in pictures]
    return np.array([np.asarray(each).ravel() for each in small], np.float32).reshape(len(small), 3 * THUMBNAIL**2)


def near(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) bool: is a row of `first` (N, D) within ALIKE of any row of `second` (M, D)?"""
    found = np.zeros(len(first), bool)
    if not len(second):
        return found
    lengths = (second**2).sum(1)
    for start in range(0, len(first), BLOCK):
        block = first[start : start + BLOCK]
        squares = (block**2).sum(1)[:, None] + lengths - 2 * block @ second.T
        found[start : start + BLOCK] = squares.min(1) < ALIKE**2 * first.shape[1]
    return found


def without_copies(world: World) -> World:
    """Leaves out the pool's exact repeats, and what looks like a test image from the pool and from training."""
    tests = thumbnails([each for pictures in world.test.values() for each in pictures])
    pool = distinct(world.pool)
    kept = [each for each, is_near in zip(pool, near(thumbnails(pool), tests), strict=True) if not is_near]
    train, test = {}, {}
    for name, pictures in world.train.items():
        alone = distinct(pictures)
        train[name] = [each for each, is_near in zip(alone, near(thumbnails(alone), tests), strict=True) if not is_near]
        test[name] = distinct(world.test[name])
    removed = {
        "repeats in the pool": len(world.pool) - len(pool),
        "like a test image, in the pool": len(pool) - len(kept),
        "like a test image or repeated, in training": total(world.train) - total(train),
        "repeated in testing": total(world.test) - total(test),
    }
    return World(world.name, world.kind, kept, train, test, removed)


def distinct(pictures: Sequence[Picture]) -> list[Picture]:
    """The first of each set of equal pixels."""
    first = {(each.image.mode, each.image.size, each.image.tobytes()): each for each in reversed(pictures)}
    kept = {id(each) for each in first.values()}
    return [each for each in pictures if id(each) in kept]


def total(split: dict[str, list[Picture]]) -> int:
    return sum(map(len, split.values()))
