"""The alphabets of the drawn world: what one copy of a class's motif looks like, as lines and polygons.

Coordinates are in [-1, 1] with y down; a copy is later scaled, turned a little and placed by `canvas`. Every
alphabet has two parts, each in four forms, so its 16 classes share parts and differ in structure, never in colour.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """A filled polygon (`width` 0) or a polyline of `width` (in half motif sizes), `level` 1 figure .. 0 ground."""

    points: tuple[Point, ...]
    width: float = 0.0
    level: float = 1.0


Motif = tuple[Stroke, ...]


def _fill(*points: Point, level: float = 1.0) -> Stroke:
    return Stroke(points, 0.0, level)


def _line(*points: Point, width: float = 0.26, level: float = 1.0) -> Stroke:
    return Stroke(points, width, level)


def _ring(radius: float, corners: int, turn: float = 0.0, centre: Point = (0.0, 0.0)) -> tuple[Point, ...]:
    """Corners of a regular polygon, the first straight up."""
    angles = [turn + math.tau * i / corners for i in range(corners)]
    return tuple((centre[0] + radius * math.sin(a), centre[1] - radius * math.cos(a)) for a in angles)


def _disc(radius: float, centre: Point = (0.0, 0.0), level: float = 1.0) -> Stroke:
    return Stroke(_ring(radius, 14, centre=centre), 0.0, level)


def _box(left: float, top: float, right: float, bottom: float, level: float = 1.0) -> Stroke:
    return _fill((left, top), (right, top), (right, bottom), (left, bottom), level=level)


def _frame(left: float, top: float, right: float, bottom: float, width: float = 0.26) -> Stroke:
    return _line((left, top), (right, top), (right, bottom), (left, bottom), (left, top), width=width)


def _spoked(inner: float, outer: float, points: int, turn: float = 0.0) -> tuple[Point, ...]:
    """A star's outline, alternating between the two radii."""
    return tuple(p for i in range(points) for p in (
        _ring(outer, points, turn)[i], _ring(inner, points, turn + math.pi / points)[i]))


def glyphs(upper: int, lower: int) -> Motif:
    """Characters: one radical over another."""
    tops = (
        (_box(-0.75, -0.95, 0.75, -0.15),),
        (_frame(-0.7, -0.9, 0.7, -0.2, width=0.28),),
        (_line((-0.5, -1.0), (-0.5, -0.1), width=0.34), _line((0.5, -1.0), (0.5, -0.1), width=0.34)),
        (_line((-0.9, -0.1), (0.0, -0.9), (0.9, -0.1), width=0.32),),
    )
    bottoms = (
        (_line((-0.9, 0.3), (0.9, 0.3), width=0.3), _line((-0.9, 0.85), (0.9, 0.85), width=0.3)),
        (_line((-0.8, 0.15), (0.8, 1.0), width=0.3), _line((0.8, 0.15), (-0.8, 1.0), width=0.3)),
        (_line((-0.75, 0.15), (-0.75, 0.85), (0.75, 0.85), (0.75, 0.15), width=0.3),),
        (_fill((-0.2, 0.15), (0.2, 0.15), (0.95, 1.0), (-0.95, 1.0)),),
    )
    return tops[upper] + bottoms[lower]


def facades(outline: int, glazing: int) -> Motif:
    """Lit windows: an outline and the bars across it."""
    outlines = (
        _box(-0.8, -0.9, 0.8, 0.95),
        _fill((-0.8, 0.95), (-0.8, -0.2), (-0.55, -0.75), (0.0, -1.0), (0.55, -0.75), (0.8, -0.2), (0.8, 0.95)),
        _fill((-0.95, 0.95), (0.0, -1.0), (0.95, 0.95)),
        Stroke(_ring(1.0, 4)),
    )
    bars = (
        (_line((0.0, -1.0), (0.0, 1.0), level=0.0), _line((-1.0, 0.25), (1.0, 0.25), level=0.0)),
        (_line((-0.3, -1.0), (-0.3, 1.0), level=0.0), _line((0.3, -1.0), (0.3, 1.0), level=0.0)),
        (_line((-1.0, -0.15), (1.0, -0.15), level=0.0), _line((-1.0, 0.45), (1.0, 0.45), level=0.0)),
        (_disc(0.42, (0.0, 0.2), level=0.0),),
    )
    return (outlines[outline], *bars[glazing])


_DRAFTS = (  # half of the crossings each, about as many edges: no two alike under shifts and mirroring
    ("xxxx", "xx..", "x.x.", "...."), ("xx..", "x..x", "..xx", ".xx."), ("xx..", "x..x", "xx..", "x..x"),
    ("xxx.", ".x..", "xxx.", ".x.."), ("xxxx", "x.x.", "....", "x.x."), ("xxxx", "x.x.", "....", ".x.x"),
    ("xx..", "xx..", "x.x.", "..xx"), ("xxx.", "xxx.", "x...", "..x."), ("xxx.", "xx.x", "x...", ".x.."),
    ("xxx.", "xx.x", ".x..", "x..."), ("xxx.", "xx.x", "...x", "..x."), ("xxx.", "x...", "xxx.", "x..."),
    ("xxx.", "x...", "x.xx", "..x."), ("xx..", "xx..", "x..x", ".xx."), ("xxx.", "x...", "xx.x", ".x.."),
    ("xx..", "xx..", "..xx", "..xx"),
)


def weaves(rows: int, columns: int) -> Motif:
    """Cloth: one repeat of a weaver's draft, four by four threads."""
    draft = _DRAFTS[4 * rows + columns]
    return tuple(
        _box(x / 2 - 1, y / 2 - 1, x / 2 - 0.5, y / 2 - 0.5)
        for y, row in enumerate(draft) for x, cell in enumerate(row) if cell == "x"
    )


def flowers(petals: int, heart: int) -> Motif:
    """Blossoms: the petals and what sits in the middle."""
    crowns = (
        tuple(_disc(0.4, p) for p in _ring(0.6, 5)),
        (Stroke(_spoked(0.4, 1.0, 5)),),
        tuple(_line((0.0, 0.0), p, width=0.3) for p in _ring(0.95, 8)),
        tuple(_disc(0.5, p) for p in _ring(0.5, 4)),
    )
    hearts = (
        (_disc(0.4, level=0.0),),
        (_disc(0.5, level=0.0), _disc(0.25)),
        tuple(_disc(0.16, p, level=0.0) for p in _ring(0.4, 3)),
        (_line((-0.6, 0.0), (0.6, 0.0), level=0.0), _line((0.0, -0.6), (0.0, 0.6), level=0.0)),
    )
    return crowns[petals] + hearts[heart]


def gears(teeth: int, hub: int) -> Motif:
    """Machine parts: the rim and the hub."""
    rims = (
        (Stroke(_spoked(0.7, 1.0, 8)),), (Stroke(_ring(0.98, 6)),),
        (_disc(0.75), *(_line((0.0, 0.0), p, width=0.35) for p in _ring(1.0, 4))),
        (_disc(0.95),),
    )
    hubs = (
        (_disc(0.45, level=0.0),), (Stroke(_ring(0.62, 3), level=0.0),),
        (Stroke(_ring(0.6, 4, math.pi / 4), level=0.0), _disc(0.22)),
        tuple(_disc(0.2, p, level=0.0) for p in _ring(0.42, 4)),
    )
    return rims[teeth] + hubs[hub]


def leaves(outline: int, veins: int) -> Motif:
    """Foliage: the blade's outline and its veins."""
    blades = (
        _fill((0.0, -1.0), (0.5, -0.4), (0.5, 0.3), (0.0, 1.0), (-0.5, 0.3), (-0.5, -0.4)),
        _fill((0.0, -1.0), (0.3, -0.3), (0.95, -0.5), (0.4, 0.2), (0.6, 0.8), (0.0, 0.6), (-0.6, 0.8), (-0.4, 0.2),
              (-0.95, -0.5), (-0.3, -0.3)),
        _fill((0.0, 1.0), (0.9, 0.1), (0.8, -0.6), (0.4, -0.8), (0.0, -0.4), (-0.4, -0.8), (-0.8, -0.6), (-0.9, 0.1)),
        _fill((-0.3, -1.0), (0.3, -1.0), (0.3, -0.3), (0.9, -0.1), (0.9, 0.3), (0.3, 0.3), (0.3, 1.0), (-0.3, 1.0),
              (-0.3, 0.3), (-0.9, 0.3), (-0.9, -0.1), (-0.3, -0.3)),
    )
    rib = _line((0.0, -0.9), (0.0, 1.0), width=0.14, level=0.2)
    sides = (
        (rib,), (rib, *(_line((-0.7, y - 0.4), (0.0, y), (0.7, y - 0.4), width=0.14, level=0.2) for y in (0.0, 0.5))),
        tuple(_line((-0.9, y), (0.9, y), width=0.16, level=0.2) for y in (-0.4, 0.0, 0.4)),
        tuple(_disc(0.17, p, level=0.2) for p in ((0.0, -0.45), (0.0, 0.1), (0.3, 0.1), (-0.3, 0.1))),
    )
    return (blades[outline], *sides[veins])


def bugs(body: int, limbs: int) -> Motif:
    """Insects from above: the body's segments and the limbs."""
    bodies = (
        (_disc(0.3, (0.0, -0.6)), _disc(0.3, (0.0, 0.0)), _disc(0.3, (0.0, 0.6))),
        (_disc(0.22, (0.0, -0.75)), _disc(0.58, (0.0, 0.25)), _line((0.0, -0.3), (0.0, 0.8), width=0.14, level=0.0)),
        (_box(-0.22, -0.9, 0.22, 0.9),),
        (_disc(0.3, (0.0, -0.65)), _fill((0.0, -0.3), (0.5, 0.95), (-0.5, 0.95))),
    )
    legs = (
        tuple(_line((-0.9, y), (0.9, y), width=0.14) for y in (-0.4, 0.05, 0.5)),
        tuple(_line((-0.9, y - 0.4), (0.0, y), (0.9, y - 0.4), width=0.14) for y in (0.0, 0.5)),
        (_disc(0.38, (-0.6, -0.1), level=0.5), _disc(0.38, (0.6, -0.1), level=0.5)),
        (_line((-0.8, -0.9), (-0.7, 0.0), (0.7, 0.0), (0.8, -0.9), width=0.16),
         _line((-0.8, 0.9), (-0.7, 0.3), (0.7, 0.3), (0.8, 0.9), width=0.16)),
    )
    return legs[limbs] + bodies[body]


def mosaics(tile: int, inlay: int) -> Motif:
    """Floor tiles: the tile and the stone let into it."""
    tiles = (
        (_box(-0.92, -0.92, 0.92, 0.92),), (Stroke(_ring(1.05, 4)),),
        (_box(-0.95, -0.95, 0.0, 0.0), _box(0.0, 0.0, 0.95, 0.95), _box(0.12, -0.95, 0.95, -0.12, level=0.5)),
        (_fill((-0.95, -0.95), (0.8, -0.95), (-0.95, 0.8)), _fill((0.95, 0.95), (-0.8, 0.95), (0.95, -0.8))),
    )
    inlays = (
        (Stroke(_spoked(0.2, 0.65, 4), level=0.0),), (Stroke(_ring(0.5, 3), level=0.0),),
        (_line((-0.5, -0.5), (0.5, 0.5), level=0.0), _line((-0.5, 0.5), (0.5, -0.5), level=0.0)),
        (_disc(0.45, level=0.0),),
    )
    return tiles[tile] + inlays[inlay]


def circuits(trace: int, part: int) -> Motif:
    """Printed boards: the copper's course and the part soldered to it."""
    traces = (
        (_line((-1.0, 0.6), (-0.3, 0.6), (-0.3, -0.6), (1.0, -0.6), width=0.2),),
        (_line((-1.0, 0.7), (1.0, 0.7), width=0.2), _line((-1.0, -0.7), (1.0, -0.7), width=0.2)),
        (_line((0.0, -1.0), (0.0, 1.0), width=0.2), _line((-1.0, 0.0), (1.0, 0.0), width=0.2)),
        (_line((-0.9, 0.9), (-0.9, -0.8), (0.9, -0.8), (0.9, 0.9), width=0.2),),
    )
    parts = (
        (_disc(0.42), _disc(0.2, level=0.0)), (_frame(-0.45, -0.35, 0.45, 0.35, width=0.2),),
        (_disc(0.25, (-0.4, 0.1)), _disc(0.25, (0.4, 0.1))),
        (_box(-0.5, -0.3, -0.1, 0.3), _box(0.1, -0.3, 0.5, 0.3)),
    )
    return traces[trace] + parts[part]


ALPHABETS: dict[str, Callable[[int, int], Motif]] = {
    f.__name__: f for f in (glyphs, facades, weaves, flowers, gears, leaves, bugs, mosaics, circuits)
}
FORMS = 4  # of each part: an alphabet has FORMS * FORMS classes


def motif(domain: str, label: int) -> Motif:
    """The motif of one class of a domain."""
    return ALPHABETS[domain](*divmod(label, FORMS))
