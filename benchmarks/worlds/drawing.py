"""Images of files as pictures of one side: on white, or cropped."""

from pathlib import Path

from PIL import Image

PLAIN = 12  # grey levels: what spans less shows nothing


def on_white(path: Path, side: int) -> Image.Image | None:
    """The whole image on white, (side, side) RGB, its longer side as long as that; None where it cannot be read."""
    image = opened(path)
    if image is None:
        return None
    coloured = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert("RGB")
    scale = side / max(flat.size)
    width, height = (max(1, round(scale * length)) for length in flat.size)
    ground = Image.new("RGB", (side, side), "white")
    ground.paste(flat.resize((width, height), Image.Resampling.LANCZOS), ((side - width) // 2, (side - height) // 2))
    return ground


def opened(path: Path) -> Image.Image | None:
    """An image with its pixels read, or None where it cannot be."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.convert(
                "RGBA" if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA") else "RGB"
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # of an image's many ways to be damaged; the package is what it is


def blank(image: Image.Image) -> bool:
    """Does it show nothing?"""
    low, high = image.convert("L").getextrema()
    return high - low < PLAIN
