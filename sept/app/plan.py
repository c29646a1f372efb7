"""The plan of a table, before anything is started: cells, what they share, what is stored and what is missing."""

import re
from collections.abc import Sequence

from sept import capability
from sept.app.console import about
from sept.app.costs import Total, table
from sept.config import Experiment
from sept.pipeline import Pipeline
from sept.runtime.hardware import resolve
from sept.store import Store


def plan(name: str, cells: Sequence[Experiment]) -> str:
    """The plan of a sweep as text. Data and weights that are not on this machine are listed, and their sizes
    assumed."""
    absent: dict[str, str] = {}
    finals, steps, cached = {}, {}, set()
    for e in cells:
        capability.require(e)
        store = Store(e.store.root, mode="read-only")
        final = Pipeline(e, resolve(e.hardware), absent=absent).run
        finals[final.key] = final
        for step in final.walk():
            if step.key not in steps and store.find(step) is not None:
                cached.add(step.key)
            steps[step.key] = step
    totals: dict[str, Total] = {}
    for key, step in steps.items():
        totals.setdefault(step.stage, Total()).add(step, key in cached)
    count = "1 cell" if len(cells) == 1 else f"{len(cells)} cells, {len(finals)} of them distinct"
    lines = [f"plan of {name}: {count}; nothing was run", *about(finals.values())]
    lines += table(totals, resolve(cells[0].hardware), cells[0].carbon)
    if absent:
        # Of a pool and of an own task both begin with its path.
        told = [
            why if what in why else f"{what}: {why.removeprefix(re.sub('^(pool|task) ', '', what) + ': ')}"
            for what, why in absent.items()
        ]
        lines += ["missing on this machine:", *(f"  {line}" for line in told)]
    return "\n".join(lines)
