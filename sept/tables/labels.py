"""How rows and differences are put into words and digits: the same in every form of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from sept.results import CELL
from sept.tables.rows import Line
from sept.tables.statistics import CONFIDENCE, Difference

CHOICES = (*CELL, "variant")
ALWAYS = ("task", "shot", "init")  # said of every row, even where all have the same
METRICS = {
    "top1": "top-1",
    "best_top1": "best",
    "frozen_top1": "frozen",
    "probe_top1": "probe",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "voc_ap50": "VOC AP50",
    "miou": "mIoU",
}
PERCENT = f"{CONFIDENCE:.0%}".replace("%", " %")
ONE_RUN = "one run each: nothing to tell noise by"


def fixed(lines: Sequence[Line]) -> dict[str, Any]:
    """Choices beyond ALWAYS that are the same wherever they have a part: said once, above the table."""
    values = {name: {line[name] for line in lines} - {None} for name in CHOICES if name not in ALWAYS}
    return {name: next(iter(found)) for name, found in values.items() if len(found) == 1}


def varying(lines: Sequence[Line]) -> list[str]:
    """Choices that are said of each row."""
    same = fixed(lines)
    return [name for name in CHOICES if name not in same and any(line[name] is not None for line in lines)]


def named(name: str, value: Any) -> str:
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
    return ", ".join(named(name, line[name]) for name in names if line[name] is not None)


def metric(lines: Sequence[Line]) -> str:
    """What the rows measure, or `score` where they measure different things; top-1 while nothing is known."""
    found = {line["metric"] for line in lines} - {None}
    return METRICS.get(name := next(iter(found), "top1"), name) if len(found) < 2 else "score"


def title(name: str, lines: Sequence[Line]) -> str:
    return f"{name}: {metric(lines)} on the test set in %, mean ± deviation over n runs"


def everywhere(lines: Sequence[Line]) -> str:
    """What holds for the whole table; empty where that is nothing."""
    told = [named(name, value) for name, value in fixed(lines).items()]
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


def gained(line: Line) -> str:
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


def subject(difference: Difference) -> str:
    """`sept - random`, or which choice of an init."""
    above, below, axis = difference.above, difference.below, difference.axis
    if axis == "init":
        return f"{above['init']} - {below['init']}"
    return f"{above['init']}: {named(axis, above[axis])} - {cell(axis, below[axis])}"


def where(difference: Difference, names: Sequence[str]) -> str:
    """Under which of the varying choices the two rows are compared."""
    both: Mapping[str, Any] = {
        name: difference.above[name] if difference.above[name] is not None else difference.below[name] for name in names
    }
    told = [name for name in names if name not in (difference.axis, "init") and both[name] is not None]
    return ", ".join(named(name, both[name]) for name in told)


def pairs(difference: Difference) -> str:
    """How many independent pairs, and of what."""
    n = difference.interval.n
    return difference.over if n == 1 else f"{n} {difference.over}"
