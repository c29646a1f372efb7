"""The pen of the drawn world: filled polygons and polylines, and the few outlines that motifs are made of.

Coordinates are in [-1, 1] with y down; a copy is later scaled, turned a little and placed by `canvas`.
"""

import math
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """A filled polygon (`width` 0) or a polyline of `width` (in half motif sizes), `level` 1 figure .. 0 ground."""

    points: tuple[Point, ...]
    width: float = 0.0
    level: float = 1.0


Motif = tuple[Stroke, ...]


def fill(*points: Point, level: float = 1.0) -> Stroke:
    return Stroke(points, 0.0, level)


def line(*points: Point, width: float = 0.26, level: float = 1.0) -> Stroke:
    return Stroke(points, width, level)


def ring(radius: float, corners: int, turn: float = 0.0, centre: Point = (0.0, 0.0)) -> tuple[Point, ...]:
    """Corners of a regular polygon, the first straight up."""
    angles = [turn + math.tau * i / corners for i in range(corners)]
    return tuple((centre[0] + radius * math.sin(a), centre[1] - radius * math.cos(a)) for a in angles)


def disc(radius: float, centre: Point = (0.0, 0.0), level: float = 1.0) -> Stroke:
    return Stroke(ring(radius, 14, centre=centre), 0.0, level)


def box(left: float, top: float, right: float, bottom: float, level: float = 1.0) -> Stroke:
    return fill((left, top), (right, top), (right, bottom), (left, bottom), level=level)


def frame(left: float, top: float, right: float, bottom: float, width: float = 0.26) -> Stroke:
    return line((left, top), (right, top), (right, bottom), (left, bottom), (left, top), width=width)


def spoked(inner: float, outer: float, points: int, turn: float = 0.0) -> tuple[Point, ...]:
    """A star's outline, alternating between the two radii."""
    return tuple(
        p
        for i in range(points)
        for p in (ring(outer, points, turn)[i], ring(inner, points, turn + math.pi / points)[i])
    )
