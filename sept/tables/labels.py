"""The row type, the formatting of rows and differences as text, and the paper's layout: shared by all forms of a
table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sept.results import CELL, MEANING, METRICS
from sept.tables.statistics import CONFIDENCE, FINETUNINGS, ONE_RUN, SEEDS, Difference

Line = dict[str, Any]
"""A row: CELL, variant, annotation, metric, n (runs), seeds (different ones), the means and deviations named below,
gain, paper, remarks, status (empty: complete), reason, runs (as from `sept.results.row`) and their experiments."""

CHOICES = (*CELL, "variant")
ALWAYS = ("task", "shot", "init")  # shown for every row, even if all are equal
PERCENT = f"{CONFIDENCE:.0%}".replace("%", " %")
OF_ONE_SEED = (
    "± and intervals over fine-tunings are those of one seed: one draw of labelled images, one selection, one "
    "pre-training. Pre-trainings vary more. For seeds of everything: python train.py +table={name} seed=0,1,2, with "
    "your other choices as before."
)
WITHIN_SEEDS = "Fine-tunings of one seed are averaged first; ± and intervals are over seeds."
FLOOR_IS = "floor: top-1 of the nearest of the same shots on raw grey pixels, which needs no training"


def shared_choices(lines: Sequence[Line]) -> dict[str, Any]:
    """Choices beyond ALWAYS that are equal wherever they apply: shown once, above the table."""
    values = {name: {line[name] for line in lines} - {None} for name in CHOICES if name not in ALWAYS}
    return {name: next(iter(found)) for name, found in values.items() if len(found) == 1}


def varying_choices(lines: Sequence[Line]) -> list[str]:
    """Choices that are shown for each row."""
    same = shared_choices(lines)
    return [name for name in CHOICES if name not in same and any(line[name] is not None for line in lines)]


def format_choice(name: str, value: Any) -> str:
    """One choice, formatted so that it needs no heading."""
    if name == "shot":
        return {"full": "all labels"}.get(str(value)) or (f"{value} shots" if isinstance(value, int) else f"{value}")
    if name in ("budget", "pool", "query", "retriever"):
        return f"{name} {cell(name, value)}"
    return str(value)


def cell(name: str, value: Any) -> str:
    """One choice below its heading; empty if it does not apply."""
    return "" if value is None else f"{value:,}" if isinstance(value, int) and name == "budget" else str(value)


def format_images(line: Line) -> str:
    """How many images were pre-trained on, where that is not the budget."""
    images = line.get("images")
    return "" if images is None or images == line["budget"] else f"{images:,.0f}"


def format_annotation(line: Line) -> str:
    """What was learnt from besides images, where that is anything."""
    return "" if line.get("annotation") in (None, "none") else str(line["annotation"])


def label(line: Line, names: Sequence[str]) -> str:
    """The choices that apply to the row."""
    return ", ".join(format_choice(name, line[name]) for name in names if line[name] is not None)


def metric(lines: Sequence[Line]) -> str:
    """The metric of the rows, or `score` if they differ; top-1 while nothing is known."""
    found = {line["metric"] for line in lines} - {None}
    return METRICS.get(name := next(iter(found), "top1"), name) if len(found) < 2 else "score"


def title(name: str, lines: Sequence[Line]) -> str:
    return f"{name}: {metric(lines)} on the test set in %, mean ± standard deviation"


def over(line: Line) -> str:
    """What the mean and the deviation are over: `3 seeds`, `3 fine-tunings`, `3 seeds, 9 fine-tunings`, `1 run`."""
    n, seeds = line["n"], line["seeds"]
    if n < 2:
        return "1 run" if n else ""
    if seeds == n:
        return f"{n} {SEEDS}"
    return f"{n} {FINETUNINGS}" if seeds == 1 else f"{seeds} {SEEDS}, {n} {FINETUNINGS}"


def same_over(lines: Sequence[Line]) -> str | None:
    """What all rows that have runs are over, if it is the same."""
    found = {over(line) for line in lines} - {""}
    return found.pop() if len(found) == 1 else None


def notes(name: str, lines: Sequence[Line]) -> list[str]:
    """What has to be known of the spread of a table: a sentence each, with what to run."""
    told = [OF_ONE_SEED.format(name=name)] if any(line["seeds"] == 1 < line["n"] for line in lines) else []
    return told + ([WITHIN_SEEDS] if any(1 < line["seeds"] < line["n"] for line in lines) else [])


def describe_shared(lines: Sequence[Line]) -> str:
    """The shared choices of the whole table; empty without any."""
    told = [format_choice(name, value) for name, value in shared_choices(lines).items()]
    return f"In all rows to which it applies: {', '.join(told)}." if told else ""


def spread(line: Line, mean: str, std: str | None = None) -> str:
    """`64.37 ± 14.63`, without the deviation for a single run; empty without runs."""
    if line.get(mean) is None:
        return ""
    deviation = line.get(std) if std else None
    return f"{line[mean]:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def bounds(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def signed(value: float) -> str:
    """Two digits with sign, never -0.00."""
    return f"{round(value, 2) + 0.0:+.2f}"


def reasons(lines: Sequence[Line]) -> list[str]:
    """Why runs are missing, each reason once."""
    return [f"missing: {reason}" for reason in dict.fromkeys(line["reason"] for line in lines) if reason]


def explained(lines: Sequence[Line]) -> list[str]:
    """What each remark on a row means, once, and what the floor is."""
    given = {each for line in lines for each in line["remarks"].split(", ")}
    told = [f"{each}: {meaning}" for each, meaning in MEANING.items() if each in given]
    return ([FLOOR_IS] if any(line.get("floor") is not None for line in lines) else []) + told


def format_gain(line: Line) -> str:
    """The row's gain over random images, marked if within noise."""
    if line.get("gain") is None:
        return ""
    interval = bounds(line.get("gain_low"), line.get("gain_high"))
    noise = "within noise" if line.get("within_noise") == "yes" else ""
    return " ".join(part for part in (signed(line["gain"]), interval, noise) if part)


def verdict(difference: Difference) -> str:
    """Whether the difference is more than noise, in a few words."""
    within = difference.interval.within_noise
    if within is None:
        return f"{ONE_RUN}: noise unknown"
    told = "within noise" if within else "higher" if difference.interval.mean > 0 else "lower"
    return f"{told}, for this seed" if difference.over == FINETUNINGS else told


def describe_subject(difference: Difference) -> str:
    """`sept - random`, or which choice of an init."""
    above, below, axis = difference.above, difference.below, difference.axis
    if axis == "init":
        return f"{above['init']} - {below['init']}"
    return f"{above['init']}: {format_choice(axis, above[axis])} - {cell(axis, below[axis])}"


def where(difference: Difference, names: Sequence[str]) -> str:
    """The varying choices that the two rows have in common."""
    both: Mapping[str, Any] = {
        name: difference.above[name] if difference.above[name] is not None else difference.below[name] for name in names
    }
    told = [name for name in names if name not in (difference.axis, "init") and both[name] is not None]
    return ", ".join(format_choice(name, both[name]) for name in told)


def pairs(difference: Difference) -> str:
    """The number of independent pairs, and what varies between them."""
    n = difference.interval.n
    return difference.over if n == 1 else f"{n} {difference.over}"


@dataclass(frozen=True)
class Matrix:
    """names: the choices that distinguish the ways to start; ways: their values; columns: (task, shot); cells: row
    indices."""

    names: tuple[str, ...]
    ways: tuple[tuple[Any, ...], ...]
    columns: tuple[tuple[str, Any], ...]
    cells: dict[tuple[int, int], int]  # (way, column) -> index of the row; absent if there is none

    def spans(self) -> list[tuple[str, int]]:
        """Each task with its number of columns."""
        return [(task, len(list(group))) for task, group in groupby(self.columns, key=lambda column: column[0])]


def matrix(lines: Sequence[Line]) -> Matrix:
    """The rows in the paper's layout, keeping their order of ways, tasks and shots."""
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


@dataclass(frozen=True)
class MethodGrid:
    """The rows of one task and number of shots by method and by what else they differ in: data, selection, length."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # a name, then mean and deviation in each column

    @property
    def heads(self) -> list[str]:
        return ["method", *self.columns]


def method_grids(lines: Sequence[Line]) -> Iterator[MethodGrid]:
    """One for each task and number of shots whose rows have several methods, each in several columns; rows without a
    method, like `rand_init`, come last."""
    names = [name for name in varying_choices(lines) if name not in ("task", "shot", "method")]
    for task, shot in _distinct([(line["task"], line["shot"]) for line in lines]):
        held = [line for line in lines if (line["task"], line["shot"]) == (task, shot)]
        trained = [line for line in held if line["method"] is not None]
        methods = _distinct([line["method"] for line in trained])
        columns = _distinct([label(line, names) for line in trained])
        texts = {(line["method"], label(line, names)): spread(line, "mean", "std") for line in trained}
        if len(methods) < 2 or len(columns) < 2 or len(texts) < len(trained):
            continue
        rows = [(method, *(texts.get((method, column), "") for column in columns)) for method in methods]
        others = [(label(line, names), spread(line, "mean", "std")) for line in held if line["method"] is None]
        rows += [(*each, *[""] * (len(columns) - 1)) for each in others]
        yield MethodGrid(f"{task}, {format_choice('shot', shot)}", tuple(columns), tuple(rows))


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
