"""The alphabets of the embedded world: the pen that draws one copy of a class's motif.

Every alphabet has two parts, each in four forms: its 16 classes share parts and differ in structure, never in colour.
Coordinates are in [-1, 1] with y down; a copy is later scaled, turned a little and placed (`domains`).
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


def glyphs(upper: int, lower: int) -> Motif:
    """Characters: one radical over another."""
    tops = (
        (box(-0.75, -0.95, 0.75, -0.15),),
        (frame(-0.7, -0.9, 0.7, -0.2, width=0.28),),
        (line((-0.5, -1.0), (-0.5, -0.1), width=0.34), line((0.5, -1.0), (0.5, -0.1), width=0.34)),
        (line((-0.9, -0.1), (0.0, -0.9), (0.9, -0.1), width=0.32),),
    )
    bottoms = (
        (line((-0.9, 0.3), (0.9, 0.3), width=0.3), line((-0.9, 0.85), (0.9, 0.85), width=0.3)),
        (line((-0.8, 0.15), (0.8, 1.0), width=0.3), line((0.8, 0.15), (-0.8, 1.0), width=0.3)),
        (line((-0.75, 0.15), (-0.75, 0.85), (0.75, 0.85), (0.75, 0.15), width=0.3),),
        (fill((-0.2, 0.15), (0.2, 0.15), (0.95, 1.0), (-0.95, 1.0)),),
    )
    return tops[upper] + bottoms[lower]


def facades(outline: int, glazing: int) -> Motif:
    """Lit windows: an outline and the bars across it."""
    outlines = (
        box(-0.7, -0.8, 0.7, 0.84),
        fill((-0.72, 0.88), (-0.72, -0.2), (-0.5, -0.68), (0.0, -0.94), (0.5, -0.68), (0.72, -0.2), (0.72, 0.88)),
        fill((-0.95, 0.95), (0.0, -1.0), (0.95, 0.95)),
        Stroke(ring(1.0, 4)),
    )
    bars = (
        (line((0.0, -1.0), (0.0, 1.0), level=0.0), line((-1.0, 0.25), (1.0, 0.25), level=0.0)),
        (line((-0.3, -1.0), (-0.3, 1.0), level=0.0), line((0.3, -1.0), (0.3, 1.0), level=0.0)),
        (line((-1.0, -0.15), (1.0, -0.15), level=0.0), line((-1.0, 0.45), (1.0, 0.45), level=0.0)),
        (disc(0.42, (0.0, 0.2), level=0.0),),
    )
    return (outlines[outline], *bars[glazing])


_DRAFTS = (  # half of the crossings each, about as many edges: no two alike under shifts and mirroring
    ("xxxx", "xx..", "x.x.", "...."),
    ("xx..", "x..x", "..xx", ".xx."),
    ("xx..", "x..x", "xx..", "x..x"),
    ("xxx.", ".x..", "xxx.", ".x.."),
    ("xxxx", "x.x.", "....", "x.x."),
    ("xxxx", "x.x.", "....", ".x.x"),
    ("xx..", "xx..", "x.x.", "..xx"),
    ("xxx.", "xxx.", "x...", "..x."),
    ("xxx.", "xx.x", "x...", ".x.."),
    ("xxx.", "xx.x", ".x..", "x..."),
    ("xxx.", "xx.x", "...x", "..x."),
    ("xxx.", "x...", "xxx.", "x..."),
    ("xxx.", "x...", "x.xx", "..x."),
    ("xx..", "xx..", "x..x", ".xx."),
    ("xxx.", "x...", "xx.x", ".x.."),
    ("xx..", "xx..", "..xx", "..xx"),
)


def weaves(rows: int, columns: int) -> Motif:
    """Cloth: one repeat of a weaver's draft, four by four threads."""
    draft = _DRAFTS[4 * rows + columns]
    return tuple(
        box(x / 2 - 1, y / 2 - 1, x / 2 - 0.5, y / 2 - 0.5)
        for y, row in enumerate(draft)
        for x, cell in enumerate(row)
        if cell == "x"
    )


def flowers(petals: int, heart: int) -> Motif:
    """Blossoms: the petals and what sits in the middle."""
    crowns = (
        tuple(disc(0.4, p) for p in ring(0.6, 5)),
        (Stroke(spoked(0.4, 1.0, 5)),),
        tuple(line((0.0, 0.0), p, width=0.3) for p in ring(0.95, 8)),
        tuple(disc(0.5, p) for p in ring(0.5, 4)),
    )
    hearts = (
        (disc(0.4, level=0.0),),
        (disc(0.5, level=0.0), disc(0.25)),
        tuple(disc(0.16, p, level=0.0) for p in ring(0.4, 3)),
        (line((-0.6, 0.0), (0.6, 0.0), level=0.0), line((0.0, -0.6), (0.0, 0.6), level=0.0)),
    )
    return crowns[petals] + hearts[heart]


def gears(teeth: int, hub: int) -> Motif:
    """Machine parts: the rim and the hub."""
    rims = (
        (Stroke(spoked(0.7, 1.0, 8)),),
        (Stroke(ring(0.98, 6)),),
        (disc(0.75), *(line((0.0, 0.0), p, width=0.35) for p in ring(1.0, 4))),
        (disc(0.95),),
    )
    hubs = (
        (disc(0.5, level=0.0),),
        (Stroke(ring(0.72, 3), level=0.0),),
        (Stroke(ring(0.72, 4, math.pi / 4), level=0.0), disc(0.26)),
        tuple(disc(0.23, p, level=0.0) for p in ring(0.45, 4)),
    )
    return rims[teeth] + hubs[hub]


def leaves(outline: int, veins: int) -> Motif:
    """Foliage: the blade's outline and its veins."""
    blades = (
        fill((0.0, -1.0), (0.5, -0.4), (0.5, 0.3), (0.0, 1.0), (-0.5, 0.3), (-0.5, -0.4)),
        fill(
            (0.0, -1.0),
            (0.3, -0.3),
            (0.95, -0.5),
            (0.4, 0.2),
            (0.6, 0.8),
            (0.0, 0.6),
            (-0.6, 0.8),
            (-0.4, 0.2),
            (-0.95, -0.5),
            (-0.3, -0.3),
        ),
        fill((0.0, 1.0), (0.9, 0.1), (0.8, -0.6), (0.4, -0.8), (0.0, -0.4), (-0.4, -0.8), (-0.8, -0.6), (-0.9, 0.1)),
        fill(
            (-0.3, -1.0),
            (0.3, -1.0),
            (0.3, -0.3),
            (0.9, -0.1),
            (0.9, 0.3),
            (0.3, 0.3),
            (0.3, 1.0),
            (-0.3, 1.0),
            (-0.3, 0.3),
            (-0.9, 0.3),
            (-0.9, -0.1),
            (-0.3, -0.3),
        ),
    )
    rib = line((0.0, -0.9), (0.0, 1.0), width=0.14, level=0.2)
    sides = (
        (rib,),
        (rib, *(line((-0.7, y - 0.4), (0.0, y), (0.7, y - 0.4), width=0.14, level=0.2) for y in (0.0, 0.5))),
        tuple(line((-0.9, y), (0.9, y), width=0.16, level=0.2) for y in (-0.4, 0.0, 0.4)),
        tuple(disc(0.17, p, level=0.2) for p in ((0.0, -0.45), (0.0, 0.1), (0.3, 0.1), (-0.3, 0.1))),
    )
    return (blades[outline], *sides[veins])


def bugs(body: int, limbs: int) -> Motif:
    """Insects from above: the body's segments and the limbs."""
    bodies = (
        (disc(0.3, (0.0, -0.6)), disc(0.3, (0.0, 0.0)), disc(0.3, (0.0, 0.6))),
        (disc(0.22, (0.0, -0.75)), disc(0.58, (0.0, 0.25)), line((0.0, -0.3), (0.0, 0.8), width=0.14, level=0.0)),
        (box(-0.22, -0.9, 0.22, 0.9),),
        (disc(0.3, (0.0, -0.65)), fill((0.0, -0.3), (0.5, 0.95), (-0.5, 0.95))),
    )
    legs = (
        tuple(line((-0.9, y), (0.9, y), width=0.14) for y in (-0.4, 0.05, 0.5)),
        tuple(line((-0.9, y - 0.4), (0.0, y), (0.9, y - 0.4), width=0.14) for y in (0.0, 0.5)),
        (disc(0.38, (-0.6, -0.1), level=0.5), disc(0.38, (0.6, -0.1), level=0.5)),
        (
            line((-0.8, -0.9), (-0.7, 0.0), (0.7, 0.0), (0.8, -0.9), width=0.16),
            line((-0.8, 0.9), (-0.7, 0.3), (0.7, 0.3), (0.8, 0.9), width=0.16),
        ),
    )
    return legs[limbs] + bodies[body]


def mosaics(tile: int, inlay: int) -> Motif:
    """Floor tiles: the tile and the stone let into it."""
    tiles = (
        (box(-0.92, -0.92, 0.92, 0.92),),
        (Stroke(ring(1.05, 4)),),
        (box(-0.95, -0.95, 0.0, 0.0), box(0.0, 0.0, 0.95, 0.95), box(0.12, -0.95, 0.95, -0.12, level=0.5)),
        (fill((-0.95, -0.95), (0.8, -0.95), (-0.95, 0.8)), fill((0.95, 0.95), (-0.8, 0.95), (0.95, -0.8))),
    )
    inlays = (
        (Stroke(spoked(0.2, 0.65, 4), level=0.0),),
        (Stroke(ring(0.5, 3), level=0.0),),
        (line((-0.5, -0.5), (0.5, 0.5), level=0.0), line((-0.5, 0.5), (0.5, -0.5), level=0.0)),
        (disc(0.45, level=0.0),),
    )
    return tiles[tile] + inlays[inlay]


def circuits(trace: int, part: int) -> Motif:
    """Printed boards: the copper's course and the part soldered to it."""
    traces = (
        (line((-1.0, 0.6), (-0.3, 0.6), (-0.3, -0.6), (1.0, -0.6), width=0.2),),
        (line((-1.0, 0.7), (1.0, 0.7), width=0.2), line((-1.0, -0.7), (1.0, -0.7), width=0.2)),
        (line((0.0, -1.0), (0.0, 1.0), width=0.2), line((-1.0, 0.0), (1.0, 0.0), width=0.2)),
        (line((-0.9, 0.9), (-0.9, -0.8), (0.9, -0.8), (0.9, 0.9), width=0.2),),
    )
    parts = (
        (disc(0.42), disc(0.2, level=0.0)),
        (frame(-0.45, -0.35, 0.45, 0.35, width=0.2),),
        (disc(0.25, (-0.4, 0.1)), disc(0.25, (0.4, 0.1))),
        (box(-0.5, -0.3, -0.1, 0.3), box(0.1, -0.3, 0.5, 0.3)),
    )
    return traces[trace] + parts[part]


ALPHABETS: dict[str, Callable[[int, int], Motif]] = {
    f.__name__: f for f in (glyphs, facades, weaves, flowers, gears, leaves, bugs, mosaics, circuits)
}
FORMS = 4  # of each part: an alphabet has FORMS * FORMS classes


def motif(domain: str, label: int) -> Motif:
    """The motif of one class of a domain."""
    return ALPHABETS[domain](*divmod(label, FORMS))
