"""Images with annotations of any kind, boxes or masks: their order, and the seeded choice among them."""

import os
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from sept.data.tasks.task import random_key
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
