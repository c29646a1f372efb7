"""The few labelled images of a run, drawn from a task's training images. Pure: reads no files."""

from collections.abc import Sequence

from sept.data.tasks.task import Example, random_key
from sept.errors import DataError


def draw(
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
