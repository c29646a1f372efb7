"""Inputs of which there is one per source of the pool."""

from collections.abc import Mapping, Sequence

from sept.store.step import Artefact, Step


def number_inputs(name: str, steps: Sequence[Step]) -> dict[str, Step]:
    """`name`0, `name`1, ..: their order is the order of the pool's rows, and part of the key."""
    return {f"{name}{i}": step for i, step in enumerate(steps)}


def in_order(inputs: Mapping[str, Artefact], name: str) -> list[Artefact]:
    """The inputs `name`0, `name`1, .. in this order."""
    return [inputs[f"{name}{i}"] for i in range(sum(each.startswith(name) for each in inputs))]
