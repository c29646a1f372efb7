"""Lines of accuracy over compute: their Pareto front, and where the line of a larger network crosses that of a smaller
one (Koppula et al. 2022, its figure)."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Curve = Sequence[tuple[float, float]]
"""(FLOPs, accuracy) of one network, ascending in FLOPs."""


@dataclass(frozen=True)
class Crossing:
    """place: (FLOPs, accuracy) from which the larger network is ahead, if the lines cross. told: a sentence."""

    place: tuple[float, float] | None
    told: str


def front(points: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """(x, y) of the points than which none has more at the same x or less; ascending in both."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return tuple(best)


def crossings(told: str, curves: Mapping[str, Curve]) -> Iterator[Crossing]:
    """For each two of the networks, which are named from small to large, that share a range of compute.

    told: what they have in common, to begin the sentence with.
    """
    for small, large in itertools.combinations(curves, 2):
        yield from _between(f"{told}: {large}", curves[large], small, curves[small])


def _between(who: str, large: Curve, small: str, other: Curve) -> Iterator[Crossing]:
    """The last budget from which the larger network is ahead to the end of what both have."""
    low, high = max(large[0][0], other[0][0]), min(large[-1][0], other[-1][0])
    if low >= high:
        return
    at = [x for x in sorted({x for x, _ in (*large, *other)}) if low <= x <= high]
    gaps = [_value(large, x) - _value(other, x) for x in at]
    if gaps[-1] <= 0:
        yield Crossing(None, f"{who} is not ahead of {small} {'at' if max(gaps) > 0 else 'up to'} {high:.2g} FLOPs.")
        return
    behind = max((place for place, gap in enumerate(gaps) if gap <= 0), default=None)
    if behind is None:
        yield Crossing(None, f"{who} is ahead of {small} from {low:.2g} FLOPs on, the least that both have.")
        return
    share = -gaps[behind] / (gaps[behind + 1] - gaps[behind])
    x = at[behind] * (at[behind + 1] / at[behind]) ** share
    yield Crossing((x, _value(large, x)), f"{who} is ahead of {small} from {x:.2g} FLOPs on.")


def _value(curve: Curve, x: float) -> float:
    """On the line through the points over the logarithm of FLOPs."""
    for (left, below), (right, above) in itertools.pairwise(curve):
        if left <= x <= right:
            return below + (above - below) * math.log(x / left) / math.log(right / left) if right > left else above
    return curve[-1][1]
