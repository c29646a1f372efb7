"""The spread of a row, the difference between two rows, and whether it is more than noise: paired runs, Student's t.

Seeds come first and fine-tunings within: those of one seed share its shots, its selection and its pre-training, so they
are averaged and count once. Two runs are a pair if they have the same seeds: the same few shots of the task, the same
fine-tuning order. Variation that both share cancels in the difference.
"""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sept.results import CELL, family
from sept.selectors import SELECTORS

CONFIDENCE = 0.95
ALIKE = ("task", "shot", "metric")  # what two rows must share to be compared
AXES = tuple(name for name in (*CELL, "variant") if name not in ALIKE)  # they differ in exactly one of these
BASELINES = ("rand_init", "in1k_sup", "in1k_ssl", "foundation", "random")  # subtrahends
SEEDS, FINETUNINGS, ONE_RUN = "seeds", "fine-tunings", "one run each"  # what varies between independent values


@dataclass(frozen=True)
class Interval:
    """Mean of n independent differences; low and high are its bounds at CONFIDENCE, None if n is 1."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def within_noise(self) -> bool | None:
        """Whether the interval contains 0; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


@dataclass(frozen=True)
class Difference:
    """`above` minus `below`, two rows that differ in `axis`. over: what varies between the n pairs."""

    above: Mapping[str, Any]
    below: Mapping[str, Any]
    axis: str
    interval: Interval
    over: str


def independent(runs: Iterable[Mapping[str, Any]], measure: str) -> list[float]:
    """The values of a row that are independent: for each seed the mean of its fine-tunings, in the order of the seeds'
    first runs; with a single seed those of its fine-tunings. Runs without the measure are left out."""
    values: dict[int, list[float]] = {}
    for run in runs:
        if run.get(measure) is not None:
            values.setdefault(run["seed"], []).append(run[measure])
    return _averaged(values)


def _averaged(values: Mapping[int, list[float]]) -> list[float]:
    """By seed: the means if there are several seeds, else the values of the one."""
    if len(values) > 1:
        return [statistics.fmean(each) for each in values.values()]
    return [value for each in values.values() for value in each]


def interval(differences: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval for the mean of independent, normal differences; at least one."""
    n, mean = len(differences), statistics.fmean(differences)
    if n == 1:
        return Interval(mean, None, None, 1)
    from scipy.special import stdtrit  # the t quantile; importing scipy.stats takes a second

    reach = float(stdtrit(n - 1, (1 + confidence) / 2)) * statistics.stdev(differences) / math.sqrt(n)
    return Interval(mean, mean - reach, mean + reach, n)


def paired(above: Mapping[str, Any], below: Mapping[str, Any]) -> tuple[Interval, str] | None:
    """The difference of two rows over their common seeds, and what varies between the pairs; None without common seeds.

    With a single seed only the fine-tunings vary: the interval then holds for that pre-training only.
    """
    ours, theirs = _scores(above), _scores(below)
    gaps: dict[int, list[float]] = {}
    for seeds in sorted(ours.keys() & theirs.keys()):
        gaps.setdefault(seeds[0], []).append(ours[seeds] - theirs[seeds])
    if not gaps:
        return None
    found = interval(_averaged(gaps))
    return found, SEEDS if len(gaps) > 1 else FINETUNINGS if found.n > 1 else ONE_RUN


def _scores(line: Mapping[str, Any]) -> dict[tuple[int, int], float]:
    return {(run["seed"], run["finetune_seed"]): run["score"] for run in line.get("runs", ())}


def differences(lines: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """All pairs of rows that differ only in the init; for each other choice, rows against the first that differs in
    it."""
    found: list[Difference] = []
    firsts: dict[tuple[Any, ...], Any] = {}
    for below, above in itertools.combinations(lines, 2):
        axis = _axis(below, above)
        if axis == "init" and _rank(below) > _rank(above):
            below, above = above, below
        if axis is None or (axis != "init" and firsts.setdefault(_but(below, axis), below[axis]) != below[axis]):
            continue
        result = paired(above, below)
        if result is not None:
            found.append(Difference(above, below, axis, *result))
    return found


def gain(line: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Interval | None:
    """The difference of a row selected by similarity over its row of random images, if there is one with the same
    start."""
    chosen = family(line["init"])
    if chosen not in SELECTORS or not SELECTORS[chosen].searches:
        return None
    random = line["init"].replace(chosen, "random", 1)
    results = [paired(line, below) for below in lines if below["init"] == random and _axis(below, line) == "init"]
    return next((result[0] for result in results if result is not None), None)


def _axis(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """The single choice in which two rows differ, else None; a choice without effect on a row never differs."""
    if any(first[name] != second[name] for name in ALIKE):
        return None
    apart = [
        name
        for name in AXES
        if first[name] != second[name] and (name == "init" or None not in (first[name], second[name]))
    ]
    return apart[0] if len(apart) == 1 else None


def _rank(line: Mapping[str, Any]) -> int:
    init = family(line["init"])
    return BASELINES.index(init) if init in BASELINES else len(BASELINES)


def _but(line: Mapping[str, Any], axis: str) -> tuple[Any, ...]:
    return (axis, *(line[name] for name in (*ALIKE, *AXES) if name != axis))
