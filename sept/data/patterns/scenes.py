"""Draws scenes: boards that show classes of the domains, hung over clutter, and where each of them hangs.

A board is cut from a picture of its class, so a crop of its box looks like an image of the domain. A place is a wall
of `WALL` units, where the boards of one domain are at home, over the clutter that is typical of it. A camera sees all
of it or comes nearer, to where motifs are as large as in the domain's own images. Lengths are in units unless they
are called pixels: an image of a domain is `IMAGE` units wide.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sept.data.patterns.domains import (
    DOMAINS,
    LOOKS,
    TARGETS,
    Colour,
    Float32Array,
    UInt8Array,
    classes,
    finish,
    oversampling,
    picture,
)

IMAGE = 32.0
WALL = 64.0
NEAR = (IMAGE, 1.5 * IMAGE)  # what the cameras of a pool see: motifs about as large as in the domain's images
AT_HOME = (2, 4)  # boards of the place's domain that are tried
STRANGERS = (0, 1)  # boards of domains that are no task
BOARD = (18.0, 30.0)  # width and height
GAP = 2.0  # between boards
EDGE = 1.0  # between a board and the end of the wall
TRIES = 200  # to hang the boards without touching
LEAST_PIXELS = 2  # of a board's width and height that the camera sees

Float64Array = NDArray[np.float64]
Span = tuple[float, float]
Box = tuple[int, int, int, int]


class Board(NamedTuple):
    """What hangs in a scene. box: left, top, right, bottom in pixels, right and bottom outside it."""

    domain: str
    label: int
    box: Box


class Clutter(NamedTuple):
    """What lies about in a place: pieces of one shape. turn: radians, none where each lies as it fell; tone: grey
    levels of the pieces, ground: of the wall."""

    shape: str
    turn: float | None
    length: Span
    pieces: int
    tone: Span
    ground: Span


UPRIGHT, ASKEW = math.pi / 2, math.pi / 4
PLACES: dict[str, Clutter] = {
    "glyphs": Clutter("wedge", None, (4, 9), 40, (110, 235), (150, 200)),
    "facades": Clutter("line", 0.0, (6, 16), 49, (20, 120), (60, 110)),
    "weaves": Clutter("line", None, (5, 10), 44, (60, 200), (90, 150)),
    "flowers": Clutter("disc", None, (2, 5), 71, (40, 160), (60, 110)),
    "gears": Clutter("disc", None, (5, 10), 27, (30, 200), (70, 170)),
    "leaves": Clutter("line", UPRIGHT, (5, 14), 53, (90, 220), (100, 170)),
    "bugs": Clutter("wedge", None, (2, 5), 67, (30, 130), (140, 200)),
    "mosaics": Clutter("square", 0.0, (3, 7), 49, (50, 210), (90, 180)),
    "circuits": Clutter("square", ASKEW, (5, 9), 27, (30, 150), (40, 90)),
}
OTHERS = tuple(domain for domain in LOOKS if domain not in TARGETS)
THICKNESS = 1.8  # of a line
WEDGE = 0.6  # how far a wedge sticks out, in half lengths
SKEW = 0.06  # how far aligned pieces stray, in radians
TINT = 14.0  # how far the colours of pieces and wall stray from grey, in levels


def draw_scene(
    domain: str, label: int, side: int, seed: int, index: int, view: Span = (WALL, WALL)
) -> tuple[UInt8Array, list[Board]]:
    """The place of a domain, uint8 (side, side, 3), and the boards seen in it, of which the first shows `label`.

    A pure function of its arguments. view: how wide a part of the wall the camera sees is drawn from there; of all the
    wall, every board is seen whole.
    """
    rng = np.random.default_rng((seed, len(DOMAINS) + DOMAINS.index(domain), label, index))
    width = rng.uniform(*view)
    corner = rng.uniform(0, WALL - width, 2)
    scale = side / width  # pixels in a unit
    scene = _lie(PLACES[domain], corner, scale, side, rng)
    shown = _choose(domain, label, rng)
    boards = []
    for (name, kind), hung in zip(shown, _hang(len(shown), rng), strict=False):
        box = np.rint((hung - np.tile(corner, 2)) * scale).astype(int)
        seen = _paint_board(scene, box, name, kind, scale, rng)
        if seen is not None:
            boards.append(Board(name, kind, seen))
    return finish(scene, rng), boards


def _choose(domain: str, label: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Domain and class of the boards that are to hang there, the most important first."""
    at_home, strangers = (int(rng.integers(few, many + 1)) for few, many in (AT_HOME, STRANGERS))
    names = [domain] * at_home + [OTHERS[rng.integers(len(OTHERS))] for _ in range(strangers)]
    labels = [label] + [int(rng.integers(classes(name))) for name in names[1:]]
    return list(zip(names, labels, strict=True))


def _hang(count: int, rng: np.random.Generator) -> Float64Array:
    """Where up to `count` boards hang, (n, 4), left, top, right, bottom in units; the first always finds its place."""
    hung = np.empty((0, 4))
    for _ in range(TRIES):
        size = rng.uniform(*BOARD, 2)
        corner = rng.uniform(EDGE, WALL - EDGE - size)
        free = (corner > hung[:, 2:] + GAP) | (corner + size + GAP < hung[:, :2])  # beside or below, each of the hung
        if free.any(axis=1).all():
            hung = np.vstack([hung, [*corner, *(corner + size)]])
        if len(hung) == count:
            break
    return hung


def _paint_board(
    scene: Float32Array, box: NDArray[np.int64], domain: str, label: int, scale: float, rng: np.random.Generator
) -> Box | None:
    """Paints a board over the scene where `box` (4,) in pixels says, and gives the part of that in the scene."""
    width, height = (box[2:] - box[:2]).tolist()
    side = max(width, height)
    look = LOOKS[domain]
    board = picture(domain, label, side, replace(look, size=look.size * IMAGE * scale / side), rng)
    left, top, right, bottom = np.clip(box, 0, len(scene)).tolist()
    if min(right - left, bottom - top) < LEAST_PIXELS:
        return None
    x, y = left - int(box[0]), top - int(box[1])
    scene[top:bottom, left:right] = board[y : y + bottom - top, x : x + right - left]
    return left, top, right, bottom


def _lie(clutter: Clutter, corner: Float64Array, scale: float, side: int, rng: np.random.Generator) -> Float32Array:
    """The wall with its clutter, (side, side, 3) in 0..255, from `corner` (2,) on."""
    over = oversampling(side)
    n = clutter.pieces
    wall = rng.uniform(*clutter.ground) + rng.normal(0.0, TINT, 3)
    colours = rng.uniform(*clutter.tone, (n, 1)) + rng.normal(0.0, TINT, (n, 3))
    centres = (rng.uniform(-EDGE, WALL + EDGE, (n, 2)) - corner) * scale * over
    lengths = rng.uniform(*clutter.length, n) * scale * over
    fallen = rng.uniform(0, math.tau, n)
    turns = fallen if clutter.turn is None else clutter.turn + rng.normal(0.0, SKEW, n)
    sheet = Image.new("RGB", (side * over, side * over), _rgb(wall))
    pen = ImageDraw.Draw(sheet)
    for centre, length, turn, colour in zip(centres, lengths, turns, colours, strict=True):
        _piece(pen, clutter.shape, centre, length, turn, _rgb(colour), max(1, round(THICKNESS * scale * over)))
    return np.asarray(sheet.reduce(over), np.float32)


def _piece(
    pen: ImageDraw.ImageDraw,
    shape: str,
    centre: Float64Array,
    length: float,
    turn: float,
    colour: Colour,
    thickness: int,
) -> None:
    """One piece of clutter; `length` is half of what it measures along `turn`."""
    along = length * np.array([math.cos(turn), math.sin(turn)])
    across = along[::-1] * (1, -1)
    corners = {
        "line": [centre - along, centre + along],
        "disc": [centre - length, centre + length],
        "wedge": [centre - along, centre + WEDGE * across, centre + along],
        "square": [centre - along, centre + across, centre + along, centre - across],
    }[shape]
    points = [tuple(corner.tolist()) for corner in corners]
    if shape == "line":
        pen.line(points, fill=colour, width=thickness)
    elif shape == "disc":
        pen.ellipse(points, fill=colour)
    else:
        pen.polygon(points, fill=colour)


def _rgb(colour: NDArray[np.float64]) -> Colour:
    red, green, blue = colour.clip(0, 255).astype(int).tolist()
    return red, green, blue
