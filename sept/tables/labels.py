"""What a row is, how rows and differences are put into words and digits, and the paper's layout of them: the same in
every form of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sept.results import CELL, METRICS
from sept.tables.statistics import CONFIDENCE, Difference

Line = dict[str, Any]
"""A row: CELL, variant, metric, n, the means and deviations named below, gain, paper, status (empty: all there),
reason, runs (as `sept.results.row` gives them) and their experiments."""

CHOICES = (*CELL, "variant")
ALWAYS = ("task", "shot", "init")  # said of every row, even where all have the same
PERCENT = f"{CONFIDENCE:.0%}".replace("%", " %")
ONE_RUN = "one run each: nothing to tell noise by"


def shared_choices(lines: Sequence[Line]) -> dict[str, Any]:
    """Choices beyond ALWAYS that are the same wherever they have a part: said once, above the table."""
    values = {name: {line[name] for line in lines} - {None} for name in CHOICES if name not in ALWAYS}
    return {name: next(iter(found)) for name, found in values.items() if len(found) == 1}


def varying_choices(lines: Sequence[Line]) -> list[str]:
    """Choices that are said of each row."""
    same = shared_choices(lines)
    return [name for name in CHOICES if name not in same and any(line[name] is not None for line in lines)]


def format_choice(name: str, value: Any) -> str:
    """One choice, said so that its value needs no heading."""
    if name == "shot":
        return {"full": "all labels"}.get(str(value)) or (f"{value} shots" if isinstance(value, int) else f"{value}")
    if name in ("budget", "pool", "query", "retriever"):
        return f"{name} {cell(name, value)}"
    return str(value)


def cell(name: str, value: Any) -> str:
    """One choice below its heading; empty where it has no part."""
    return "" if value is None else f"{value:,}" if name == "budget" else str(value)


def label(line: Line, names: Sequence[str]) -> str:
    """Those of the choices that have a part in the row."""
    return ", ".join(format_choice(name, line[name]) for name in names if line[name] is not None)


def metric(lines: Sequence[Line]) -> str:
    """What the rows measure, or `score` where they measure different things; top-1 while nothing is known."""
    found = {line["metric"] for line in lines} - {None}
    return METRICS.get(name := next(iter(found), "top1"), name) if len(found) < 2 else "score"


def title(name: str, lines: Sequence[Line]) -> str:
    return f"{name}: {metric(lines)} on the test set in %, mean ± deviation over n runs"


def describe_shared(lines: Sequence[Line]) -> str:
    """What holds for the whole table; empty where that is nothing."""
    told = [format_choice(name, value) for name, value in shared_choices(lines).items()]
    return f"Everywhere, where it has a part: {', '.join(told)}." if told else ""


def spread(line: Line, mean: str, std: str | None = None) -> str:
    """`64.37 ± 14.63`, without the deviation where there is one run; empty where there is none."""
    if line.get(mean) is None:
        return ""
    deviation = line.get(std) if std else None
    return f"{line[mean]:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def bounds(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def signed(value: float) -> str:
    """Two digits and the sign, without a negative nothing."""
    return f"{round(value, 2) + 0.0:+.2f}"


def reasons(lines: Sequence[Line]) -> list[str]:
    """Why runs cannot be there, each reason once."""
    return [f"missing: {reason}" for reason in dict.fromkeys(line["reason"] for line in lines) if reason]


def format_gain(line: Line) -> str:
    """What the row has over random images; says when that is within noise."""
    if line.get("gain") is None:
        return ""
    interval = bounds(line.get("gain_low"), line.get("gain_high"))
    noise = "within noise" if line.get("within_noise") == "yes" else ""
    return " ".join(part for part in (signed(line["gain"]), interval, noise) if part)


def verdict(difference: Difference) -> str:
    """In one or two words, whether the difference is more than noise."""
    within = difference.interval.within_noise
    if within is None:
        return ONE_RUN
    return "within noise" if within else "higher" if difference.interval.mean > 0 else "lower"


def describe_subject(difference: Difference) -> str:
    """`sept - random`, or which choice of an init."""
    above, below, axis = difference.above, difference.below, difference.axis
    if axis == "init":
        return f"{above['init']} - {below['init']}"
    return f"{above['init']}: {format_choice(axis, above[axis])} - {cell(axis, below[axis])}"


def where(difference: Difference, names: Sequence[str]) -> str:
    """Under which of the varying choices the two rows are compared."""
    both: Mapping[str, Any] = {
        name: difference.above[name] if difference.above[name] is not None else difference.below[name] for name in names
    }
    told = [name for name in names if name not in (difference.axis, "init") and both[name] is not None]
    return ", ".join(format_choice(name, both[name]) for name in told)


def pairs(difference: Difference) -> str:
    """How many independent pairs, and of what."""
    n = difference.interval.n
    return difference.over if n == 1 else f"{n} {difference.over}"


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
    names = tuple(name for name in varying_choices(lines) if name not in ("task", "shot"))
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
