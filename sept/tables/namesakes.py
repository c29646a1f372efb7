"""Different folders of one name in a table are told apart by as much of their paths as it takes: `a/flowers` and
`b/flowers`."""

import os
from collections.abc import Iterable, Sequence
from itertools import count

from sept import paths
from sept.config import Experiment
from sept.data.locate import ARCHIVES
from sept.data.settings import Pool, Task

GROUPS = ("pool", "task")
Apart = dict[tuple[str, str], str]
"""What is told instead of a name, by group and absolute path."""


def told_apart(cells: Iterable[Experiment]) -> Apart:
    """For pools and tasks that took their name from their path and share it with another path of these cells.

    Of others of one name (by `task.name=`, say) the settings that differ are told: see `sept.tables.rows`.
    """
    found: dict[tuple[str, str], dict[str, None]] = {}
    for e in cells:
        for group in GROUPS:
            holder = getattr(e, group)
            if _called_by_path(holder):
                found.setdefault((group, holder.name), {})[os.path.abspath(holder.path)] = None
    apart: Apart = {}
    for (group, _), places in found.items():
        if len(places) > 1:
            apart |= {(group, place): tail for place, tail in zip(places, _tails([*places]), strict=True)}
    return apart


def name_in(apart: Apart, group: str, holder: Pool | Task) -> str:
    """What the pool or the task is called in the table."""
    return apart.get((group, os.path.abspath(holder.path)), holder.name) if holder.path else holder.name


def _called_by_path(holder: Pool | Task) -> bool:
    return holder.path is not None and holder.name == paths.called(holder.path, holder.kind in ARCHIVES)


def _tails(places: Sequence[str]) -> list[str]:
    """The shortest ends of different paths, of equally many parts, that differ."""
    for parts in count(1):
        tails = ["/".join(place.split("/")[-parts:]) for place in places]
        if len({*tails}) == len(tails):
            break
    return tails
