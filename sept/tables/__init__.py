"""Presentation of a table: rows from the store next to the paper's, differences, figures, a report.

Reads manifests and runs nothing; torch and matplotlib are imported only when needed.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sept.config import Experiment
from sept.tables.labels import Line
from sept.tables.rows import rows
from sept.tables.text import COLUMNS, as_terminal, cells_of

__all__ = ["COLUMNS", "Line", "cells_of", "rows", "tell"]


def tell(name: str, cells: Sequence[Experiment], send: Callable[[str, Sequence[Experiment], list[Line]], Any]) -> None:
    """Prints the table of a sweep, and sends it to its cells' logger."""
    lines = rows(cells)
    print(as_terminal({name: lines}), end="")
    send(name, cells, lines)
