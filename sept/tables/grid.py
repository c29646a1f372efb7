"""The layout of the paper's tables: a line for each way to start, a column for each task and number of shots."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sept.tables import labels
from sept.tables.rows import Line


@dataclass(frozen=True)
class Matrix:
    """names: the choices a way to start is told by; ways: their values; columns: (task, shot); cells: row indices."""

    names: tuple[str, ...]
    ways: tuple[tuple[Any, ...], ...]
    columns: tuple[tuple[str, Any], ...]
    cells: dict[tuple[int, int], int]  # (way, column) -> place in the rows; what no row compares is absent

    def spans(self) -> list[tuple[str, int]]:
        """Each task with how many columns it has."""
        return [(task, len(list(group))) for task, group in groupby(self.columns, key=lambda column: column[0])]


def matrix(lines: Sequence[Line]) -> Matrix:
    """The rows in the paper's layout, in their own order of ways, tasks and shots."""
    names = tuple(name for name in labels.varying(lines) if name not in ("task", "shot"))
    ways = _distinct([tuple(line[name] for name in names) for line in lines])
    tasks, shots = _distinct([line["task"] for line in lines]), _distinct([line["shot"] for line in lines])
    held = {(line["task"], line["shot"]) for line in lines}
    columns = [(task, shot) for task in tasks for shot in shots if (task, shot) in held]
    cells = {
        (ways.index(tuple(line[name] for name in names)), columns.index((line["task"], line["shot"]))): place
        for place, line in enumerate(lines)
    }
    assert len(cells) == len(lines), "two rows with the same choices have no variant"
    return Matrix(names, tuple(ways), tuple(columns), cells)


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
