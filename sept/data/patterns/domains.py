"""The domains of the drawn world: how each looks, which are tasks, and the junk between them."""

import math

import numpy as np

from sept.data.patterns.canvas import Look, UInt8Array, finish, paint
from sept.data.patterns.motifs import ALPHABETS, FORMS

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
