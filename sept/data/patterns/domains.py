"""The domains of the embedded world: how each looks, which are tasks, the junk between them; one image of them drawn.

Copies of a class's motif lie over its domain's ground, under some light. Pure functions of their arguments. Structure
is drawn in units of the side, so a larger side shows the same scene finer.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sept.data.patterns.motifs import ALPHABETS, FORMS, motif

Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Look:
    """What is typical of a domain.

    Colour pairs (figure, ground) and how far an image's own stray from them, layouts, ground textures, a motif's
    width in sides and the pitch of copies in motif widths.
    """

    colours: tuple[tuple[Colour, Colour], ...]
    layouts: tuple[str, ...]
    grounds: tuple[str, ...] = ("plain",)
    stray: float = 4.0
    size: float = 0.38
    gap: float = 1.12


def oversampling(side: int) -> int:
    """Canvas pixels per image pixel: small images need it to show thin strokes."""
    return 3 if side <= 48 else 2


@lru_cache(maxsize=512)
def _outline(domain: str, label: int) -> tuple[NDArray[np.float64], tuple[tuple[int, int, float, int], ...]]:
    """A motif's points as one array (P, 2) and, a stroke, (first, last, width, level 0..255)."""
    points: list[tuple[float, float]] = []
    strokes = []
    for stroke in motif(domain, label):
        strokes.append((len(points), len(points) + len(stroke.points), stroke.width, round(255 * stroke.level)))
        points += stroke.points
    return np.array(points), tuple(strokes)


def _places(layout: str, size: float, gap: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres (n, 2) of the copies, in sides, from a margin outside the image on; `size` is a motif's width."""
    pitch = size * gap
    phase = rng.random(2) * pitch
    steps = np.arange(-1, math.ceil(1 / pitch) + 2)
    x, y = np.meshgrid(steps * pitch, steps * pitch)
    if layout == "brick":
        x = x + (steps[:, None] % 2) * pitch / 2
    elif layout == "rows":
        y = y * 1.3
    spots = np.stack([x.ravel(), y.ravel()], 1) - phase
    if layout == "scatter":
        spots = spots + rng.uniform(-0.12, 0.12, spots.shape) * size
    inside = ((spots > -0.4 * size) & (spots < 1 + 0.4 * size)).all(1)
    return spots[inside]


def figure(domain: str, label: int, side: int, look: Look, rng: np.random.Generator) -> Float32Array:
    """How much figure each pixel shows, (side, side) in [0, 1]."""
    layout = look.layouts[rng.integers(len(look.layouts))]
    size = look.size * rng.uniform(0.9, 1.12)
    turn = rng.normal(0.0, 0.03)
    mirror = rng.choice((-1.0, 1.0))
    points, strokes = _outline(domain, label)
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    shape = (points * (mirror, 1.0)) @ rotation * (size / 2)
    scale = side * oversampling(side)
    copies = (_places(layout, size, look.gap, rng)[:, None] + shape) * scale  # (n, P, 2)
    sheet = Image.new("L", (scale, scale))
    pen = ImageDraw.Draw(sheet)
    for copy in copies.tolist():
        for first, last, width, level in strokes:
            outline = [tuple(p) for p in copy[first:last]]
            if width:
                pen.line(outline, fill=level, width=max(1, round(width * size / 2 * scale)))
            else:
                pen.polygon(outline, fill=level)
    return np.asarray(sheet.reduce(oversampling(side)), np.float32) / np.float32(255)


def ground(texture: str, side: int, rng: np.random.Generator) -> Float32Array:
    """Light and shade of a ground, (side, side) around 0."""
    across = np.arange(side, dtype=np.float32) / side
    shade = np.zeros((side, side), np.float32)
    if texture == "striped":
        shade += 0.10 * np.sin(math.tau * (across * rng.uniform(5, 7) + rng.random()))
    elif texture == "sloped":
        shade += 0.35 * (across - 0.5)[:, None]
    elif texture == "grainy":
        grain = rng.random((side // 2 + 1, side // 2 + 1), np.float32) - 0.5
        shade += 0.28 * grain.repeat(2, 0).repeat(2, 1)[:side, :side]
    return shade


def paint(domain: str, label: int, side: int, look: Look, rng: np.random.Generator) -> UInt8Array:
    """One image of a class, (side, side, 3)."""
    return finish(picture(domain, label, side, look, rng), rng)


def picture(domain: str, label: int, side: int, look: Look, rng: np.random.Generator) -> Float32Array:
    """A class as it is before light falls on it, (side, side, 3) in 0..255 or a little beyond."""
    front, back = np.array(look.colours[rng.integers(len(look.colours))], np.float32)
    shift = rng.normal(0.0, look.stray, (2, 3)).astype(np.float32)
    texture = look.grounds[rng.integers(len(look.grounds))]
    shown = figure(domain, label, side, look, rng)[..., None]
    shade = 1 + ground(texture, side, rng)[..., None]
    return (back + shift[1]) * shade * (1 - shown) + (front + shift[0]) * shown


def finish(scene: Float32Array, rng: np.random.Generator) -> UInt8Array:
    """Exposure, light falling off to one side, and sensor noise over a picture in 0..255."""
    side = scene.shape[0]
    across = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    slope = rng.normal(0.0, 0.1, 2).astype(np.float32)
    light = np.float32(rng.uniform(0.82, 1.15)) * (1 + slope[0] * across[:, None] + slope[1] * across[None])
    noise = rng.standard_normal(scene.shape, np.float32) * np.float32(4.0)
    return (scene * light[..., None] + noise).clip(0, 255).astype(np.uint8)


JUNK = "junk"
LOOKS: dict[str, Look] = {
    "glyphs": Look((((40, 34, 44), (226, 214, 190)),), ("grid", "rows")),
    "facades": Look((((248, 214, 130), (60, 62, 88)),), ("grid", "brick")),
    "weaves": Look(
        (((222, 196, 200), (120, 48, 62)), ((214, 206, 190), (70, 66, 110)), ((230, 200, 150), (110, 66, 40))),
        ("grid",),
        ("plain", "grainy"),
        22,
        0.36,
        1.0,
    ),
    "flowers": Look(
        (((240, 160, 190), (50, 88, 46)), ((246, 236, 220), (60, 100, 60)), ((236, 190, 90), (44, 76, 52))),
        ("scatter", "brick"),
        ("grainy", "sloped"),
        22,
    ),
    "gears": Look((((196, 202, 210), (54, 58, 66)),), ("grid", "brick"), size=0.44),
    "leaves": Look(
        (((66, 108, 50), (214, 210, 180)), ((120, 90, 40), (206, 212, 200)), ((50, 90, 70), (196, 176, 140))),
        ("scatter", "brick"),
        ("plain", "grainy"),
        22,
    ),
    "bugs": Look(
        (((60, 44, 34), (216, 186, 140)), ((36, 40, 44), (190, 200, 160)), ((90, 40, 36), (222, 206, 190))),
        ("scatter", "rows"),
        ("grainy", "striped"),
        22,
    ),
    "mosaics": Look(
        (((70, 110, 140), (220, 218, 210)), ((150, 80, 60), (226, 216, 200)), ((70, 80, 84), (206, 206, 200))),
        ("grid", "brick"),
        ("plain", "sloped"),
        22,
    ),
    "circuits": Look(
        (((220, 180, 100), (30, 84, 56)), ((206, 206, 190), (34, 60, 96)), ((216, 160, 90), (40, 70, 40))),
        ("grid", "rows"),
        ("plain", "striped"),
        22,
    ),
}
DOMAINS: tuple[str, ...] = (*LOOKS, JUNK)
TARGETS: tuple[str, ...] = ("glyphs", "facades", "gears")


def classes(domain: str) -> int:
    """How many classes a domain has; junk has one, since nobody sorted it."""
    return 1 if domain == JUNK else FORMS * FORMS


def draw(domain: str, label: int, side: int, seed: int, index: int) -> UInt8Array:
    """One image, uint8 (side, side, 3): a pure function of its arguments."""
    rng = np.random.default_rng((seed, DOMAINS.index(domain), label, index))
    return _junk(side, rng) if domain == JUNK else paint(domain, label, side, LOOKS[domain], rng)


def _junk(side: int, rng: np.random.Generator) -> UInt8Array:
    """What crawls bring along: blank frames, gradients, smears, and two pictures glued together."""
    kind = rng.integers(4)
    picture = np.broadcast_to(rng.uniform(20, 235, 3).astype(np.float32), (side, side, 3)).copy()
    if kind == 1:
        ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
        picture = picture * (1 - ramp) + rng.uniform(20, 235, 3).astype(np.float32) * ramp
    elif kind == 2:
        cells = rng.uniform(0, 255, (4, 4, 3)).astype(np.float32)
        picture = cells.repeat(math.ceil(side / 4), 0).repeat(math.ceil(side / 4), 1)[:side, :side]
    elif kind == 3:
        names = rng.choice(list(ALPHABETS), 2)
        halves = [paint(n, int(rng.integers(FORMS * FORMS)), side, LOOKS[n], rng) for n in names]
        picture = np.concatenate([halves[0][: side // 2], halves[1][side // 2 :]]).astype(np.float32)
    return finish(picture, rng)
