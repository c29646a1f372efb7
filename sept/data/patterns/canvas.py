"""Draws one image of the world: copies of a class's motif over its domain's ground, under some light.

Pure functions of their arguments. Structure is drawn in units of the side, so a larger side shows the same scene finer.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sept.data.patterns.motifs import motif

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
