"""Fonts and images that the tests of worlds make, and what they ask of a split."""

import numpy as np
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

EM = 1000


def write_font(path, family, letters, seed, alike="", blank=""):
    """A font that draws each letter as four rectangles of its own; those of `alike` as one, those of `blank` not."""
    names = {letter: f"u{ord(letter):05x}" for letter in letters}
    glyphs_of = {".notdef": rectangles(np.random.default_rng([seed, 0]))}
    for letter, name in names.items():
        own = 1 if letter in alike else ord(letter)
        glyphs_of[name] = (
            TTGlyphPen(None).glyph() if letter in blank else rectangles(np.random.default_rng([seed, own]))
        )
    builder = FontBuilder(EM, isTTF=True)
    builder.setupGlyphOrder(list(glyphs_of))
    builder.setupCharacterMap({ord(letter): name for letter, name in names.items()})
    builder.setupGlyf(glyphs_of)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs_of, (EM, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)


def rectangles(rng):
    pen = TTGlyphPen(None)
    for _ in range(4):
        x, y, width, height = (int(value) for value in rng.integers((0, 0, 80, 80), (600, 500, 400, 300)))
        pen.moveTo((x, y))
        for point in ((x, y + height), (x + width, y + height), (x + width, y)):
            pen.lineTo(point)
        pen.closePath()
    return pen.glyph()


def png(path, seed, side=48, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 6, len(mode)), np.uint8)
    Image.fromarray(pixels, mode).resize((side, side), Image.Resampling.NEAREST).save(path)


def sources(split):
    return {each.source for pictures in split.values() for each in pictures}
