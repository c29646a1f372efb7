"""The plan of a table, before anything is started: cells, what they share, what is stored and what is missing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sept import capability
from sept.app.console import about
from sept.config import Experiment
from sept.pipeline import Pipeline
from sept.runtime.hardware import resolve
from sept.store import Step, Store

FLOPS_PER_S = 1.1e14  # of one GPU: about a third of an A100's peak in bfloat16
KILOWATTS = 0.5  # of one GPU with its share of the machine
ASSUMED = (
    f"assumed: {FLOPS_PER_S:.2g} FLOP/s and {KILOWATTS:g} kW per GPU; detectors: trunk only; features in float16, "
    "stored images 4:3; published sizes for missing data"
)
HEADER = ("stage", "steps", "cached", "to do", "images", "FLOPs", "GPU-hours", "kWh", "disk")
UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass
class Total:
    """Counts over the steps of a stage: all, those in the store, and the cost of the others."""

    steps: int = 0
    cached: int = 0
    images: float = 0.0
    flops: float = 0.0
    disk: float = 0.0

    def add(self, step: Step, cached: bool) -> None:
        self.steps += 1
        self.cached += cached
        if not cached:
            self.images += step.estimate.get("images", 0.0)
            self.flops += step.estimate.get("flops", 0.0)
            self.disk += step.estimate.get("bytes", 0.0)


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
    lines = [f"plan of {name}: {count}; nothing was run", *about(finals.values()), *_table(totals)]
    lines.append(ASSUMED)
    if absent:
        # Of a pool and of an own task both begin with its path.
        told = [
            why if what in why else f"{what}: {why.removeprefix(re.sub('^(pool|task) ', '', what) + ': ')}"
            for what, why in absent.items()
        ]
        lines += ["missing on this machine:", *(f"  {line}" for line in told)]
    return "\n".join(lines)


def _table(totals: dict[str, Total]) -> list[str]:
    whole = Total()
    for each in totals.values():
        whole.steps, whole.cached = whole.steps + each.steps, whole.cached + each.cached
        whole.flops, whole.disk = whole.flops + each.flops, whole.disk + each.disk
    rows = [HEADER, *(_row(stage, total) for stage, total in totals.items()), _row("total", whole)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _row(name: str, total: Total) -> tuple[str, ...]:
    hours = total.flops / FLOPS_PER_S / 3600
    return (
        name,
        f"{total.steps:,}",
        f"{total.cached:,}",
        f"{total.steps - total.cached:,}",
        f"{total.images:,.0f}" if total.images else "",
        f"{total.flops:.2e}" if total.flops else "",
        f"{hours:,.1f}" if total.flops else "",
        f"{hours * KILOWATTS:,.1f}" if total.flops else "",
        _bytes(total.disk) if total.disk else "",
    )


def _bytes(size: float) -> str:
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {UNITS[unit]}"
