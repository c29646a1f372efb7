"""Images of files as pictures of one side: on white, or cropped."""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageChops

LARGEST = 40_000_000  # pixels that are worth decoding for one picture
PLAIN = 12  # grey levels: what spans less shows nothing


def on_white(path: Path, side: int, trim: bool = False) -> Image.Image | None:
    """The whole image on white, (side, side) RGB, its longer side as long as that; None where it cannot be read.

    `trim` leaves out borders that are white.
    """
    image = opened(path)
    if image is None:
        return None
    coloured = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert("RGB")
    if trim and (box := ImageChops.invert(flat).getbbox()):
        flat = flat.crop(box)
    scale = side / max(flat.size)
    width, height = (max(1, round(scale * length)) for length in flat.size)
    ground = Image.new("RGB", (side, side), "white")
    ground.paste(flat.resize((width, height), Image.Resampling.LANCZOS), ((side - width) // 2, (side - height) // 2))
    return ground


def opened(file: Path | BinaryIO) -> Image.Image | None:
    """An image with its pixels read, or None where it cannot be."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            if image.width * image.height > LARGEST:
                return None
            image.load()
            return image.convert(
                "RGBA" if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA") else "RGB"
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # of an image's many ways to be damaged; the package is what it is


def cells(image: Image.Image, shorter: int, side: int) -> list[Image.Image]:
    """The image at `shorter` px of its shorter side, cut into as many (side, side) RGB as fit beside one another."""
    scale = shorter / min(image.size)
    width, height = (max(side, round(scale * length)) for length in image.size)
    whole = image.convert("RGB").resize(
        (width, height), Image.Resampling.BOX if scale < 0.25 else Image.Resampling.LANCZOS
    )
    left, top = width % side // 2, height % side // 2
    return [
        whole.crop((x, y, x + side, y + side))
        for y in range(top, height - side + 1, side)
        for x in range(left, width - side + 1, side)
    ]


def blank(image: Image.Image) -> bool:
    """Does it show nothing?"""
    return int(np.ptp(np.asarray(image.convert("L")))) < PLAIN
