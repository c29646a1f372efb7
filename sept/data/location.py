"""Where images lie now: never part of what identifies a result."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Location:
    """Of a source of the pool, or of a task: how its images lie on disk and where; None where they are drawn. name: of
    a source. options: what else the reader of a task takes."""

    kind: str
    path: str | None = None
    name: str = ""
    options: tuple[tuple[str, Any], ...] = ()
