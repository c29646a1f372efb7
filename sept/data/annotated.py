"""Which of a task's images are used: seeded draws among labelled images, and among those with boxes or masks.

Pure: reads no files.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from sept.data.tasks.task import Example, random_key
from sept.errors import DataError

PURPOSE = "detection"  # stands where a class name does in the lots of classification


class Named(Protocol):
    """What has an id: the posix path of an image relative to its data set's root."""

    @property
    def id(self) -> str: ...


Image = TypeVar("Image", bound=Named)


def by_id(images: Iterable[Image]) -> list[Image]:
    """Sorted by the bytes of their ids, so in one order on every file system."""
    return sorted(images, key=lambda image: os.fsencode(image.id))


def draw_images(train: Sequence[Image], count: int, seed: int) -> list[Image]:
    """The `count` images of the smallest lots, in the order of their lots (SEPT uses 1,000 training images a task).

    It depends on the seed and on the ids alone, and a smaller draw begins a larger one. Raises DataError where there
    are fewer.
    """
    if not 0 < count <= len(train):
        raise DataError(f"{count} training images asked for, of {len(train)} there are; ask for fewer, at least 1")
    return sorted(train, key=lambda image: random_key(seed, PURPOSE, image.id))[:count]


def draw_shots(
    train: Sequence[Example], per_class: int | None, seed: int, classes: Sequence[str], share: float = 1.0
) -> list[Example]:
    """`per_class` images of every class, or for None that share of each, ordered by class and then by lot.

    A class gives those of its smallest lots, so what is drawn depends on the seed and on the images alone, a smaller
    draw is part of a larger one, and classes do not influence each other. Raises DataError where a class has too few.
    """
    of_class: list[list[Example]] = [[] for _ in classes]
    for example in train:
        of_class[example.label].append(example)
    for name, examples in zip(classes, of_class, strict=True):
        if per_class is not None and len(examples) < per_class:
            raise DataError(
                f"class {name!r} has {len(examples)} training images but shot.per_class={per_class}; "
                "lower it, add images, or leave the class out"
            )
        examples.sort(key=lambda example: random_key(seed, name, example.id))
    counts = (max(1, round(share * len(examples))) if per_class is None else per_class for examples in of_class)
    return [example for examples, count in zip(of_class, counts, strict=True) for example in examples[:count]]
