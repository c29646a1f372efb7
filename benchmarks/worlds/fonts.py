"""Letters of fonts as pictures: dark on white, in their natural size, in the middle."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fontTools.ttLib import TTFont, TTLibError
from PIL import Image, ImageChops, ImageDraw, ImageFont

from benchmarks.worlds.pictures import Picture

SIDE, EM, MARGIN = 48, 34, 2  # px
COVERED = 0.8  # of a script's letters, for a font to count as one of the script
NOTHING = "\uffff"  # no character: every font draws its missing glyph


@dataclass(frozen=True)
class Font:
    """A font file: its family, and the characters that it has a glyph for."""

    path: Path
    family: str
    characters: frozenset[str]

    def draws(self, letters: str) -> bool:
        return len(self.characters.intersection(letters)) >= COVERED * len(letters)


def read(paths: Iterable[Path]) -> list[Font]:
    """The fonts among these files that can be read, in their order."""
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    found = []
    for path in paths:
        try:
            with open(path, "rb") as file, TTFont(file, lazy=True) as font:
                family = font["name"].getBestFamilyName()
                codes = font.getBestCmap() or {}
            ImageFont.truetype(path, EM)
        except (TTLibError, OSError, KeyError, AssertionError, ValueError):
            continue  # a damaged file, or one of another kind
        if family:
            found.append(Font(path, family.strip(), frozenset(map(chr, codes))))
    return found


def drawn(font: Font, letters: Sequence[str], kind: str) -> dict[str, Picture]:
    """Pictures of those letters that the font truly draws: not blank, not its missing glyph, no two alike."""
    face = ImageFont.truetype(font.path, EM, layout_engine=ImageFont.Layout.BASIC)
    missing = letter(face, NOTHING)
    found = {}
    for each in letters:
        image = letter(face, each) if each in font.characters else None
        if image is not None and (missing is None or image.tobytes() != missing.tobytes()):
            found[each] = image
    times = Counter(image.tobytes() for image in found.values())
    return {each: Picture(image, kind, font.family) for each, image in found.items() if times[image.tobytes()] == 1}


def letter(face: ImageFont.FreeTypeFont, character: str) -> Image.Image | None:
    """One character, (SIDE, SIDE) grey; smaller where it would not fit; None where nothing is drawn."""
    wide = Image.new("L", (4 * SIDE, 4 * SIDE), 255)
    try:
        ImageDraw.Draw(wide).text((SIDE, SIDE), character, fill=0, font=face)
    except (OSError, ValueError):
        return None  # a damaged glyph
    box = ImageChops.invert(wide).getbbox()
    if box is None:
        return None
    ink = wide.crop(box)
    ink.thumbnail((SIDE - 2 * MARGIN, SIDE - 2 * MARGIN), Image.Resampling.LANCZOS)
    image = Image.new("L", (SIDE, SIDE), 255)
    image.paste(ink, ((SIDE - ink.width) // 2, (SIDE - ink.height) // 2))
    return image
