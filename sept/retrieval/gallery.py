"""Galleries of a selection: queries next to their best matches (SEPT Fig. 5), as one PNG and one HTML page.

Writes self-contained files from images and similarities: the page embeds its pictures and loads nothing.
"""

import base64
import html
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sept.retrieval.shards import publish

TILE = 128  # pixels, the side of every picture shown, whatever the size of the image
GAP, CAPTION, FONT = 10, 20, 12  # pixels: between tiles, height of a caption, size of its letters
INK, PAPER, MARK = (32, 33, 36), (255, 255, 255), (26, 115, 232)  # text, ground, frame of the queries
JPEG_QUALITY = 90
SHOWN = 8  # entries of a list or mapping in the statistics

Picture = npt.NDArray[np.uint8]  # (H, W, 3)

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top; font-weight: normal; }
td { font-variant-numeric: tabular-nums; }
section { display: flex; flex-wrap: wrap; gap: .75rem; padding: .75rem 0; border-top: 1px solid #8884; }
figure { margin: 0; width: 128px; }
figure img { display: block; border-radius: 4px; }
figure.query { margin-right: 1rem; }
figure.query img { outline: 3px solid #1a73e8; outline-offset: -3px; }
figcaption { font-size: 12px; overflow-wrap: anywhere; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
"""


@dataclass(frozen=True)
class Match:
    """A pool image found for a query; similarity None if it was not searched for."""

    caption: str
    image: Picture
    similarity: float | None

    def told(self, between: str) -> str:
        """The similarity, if there is one, and the name."""
        return self.caption if self.similarity is None else f"{self.similarity:.3f}{between}{self.caption}"


@dataclass(frozen=True)
class Row:
    """A query and its matches, most similar first."""

    label: str
    image: Picture
    matches: Sequence[Match]


def write_png(path: Path, rows: Sequence[Row]) -> None:
    """The gallery as a PNG file."""
    publish(path, lambda file: gallery(rows).save(file, format="PNG"))


def gallery(rows: Sequence[Row]) -> Image.Image:
    """One line per query, framed, followed by its matches with their similarity; names too long for a tile are cut."""
    columns = 1 + max((len(row.matches) for row in rows), default=0)
    step = TILE + GAP
    sheet = Image.new("RGB", (columns * step + 2 * GAP, len(rows) * (step + CAPTION) + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    for line, row in enumerate(rows):
        y = GAP + line * (step + CAPTION)
        captions = [row.label] + [match.told("  ") for match in row.matches]
        for column, image in enumerate([row.image] + [match.image for match in row.matches]):
            x = GAP + column * step + (GAP if column else 0)  # the queries stand a little apart
            sheet.paste(_tile(image), (x, y))
            draw.text((x, y + TILE + 2), _cut(captions[column], font), fill=INK, font=font)
        draw.rectangle((GAP - 3, y - 3, GAP + TILE + 2, y + TILE + 2), outline=MARK, width=3)
    return sheet


def write_html(
    path: Path,
    title: str,
    rows: Sequence[Row],
    statistics: Mapping[str, Any],
    story: Mapping[str, Sequence[str]] | None = None,
    drawings: Mapping[str, str] | None = None,
    meaning: Mapping[str, str] | None = None,
) -> None:
    """The same with full names. story: sentences under headings. drawings: SVG under titles. statistics: a table, with
    the meaning of each."""
    heading = html.escape(title)
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>\n<h1>{heading}</h1>',
    ]
    for title, sentences in (story or {}).items():
        parts += [f"<h2>{html.escape(title)}</h2>", *(f"<p>{html.escape(each)}</p>" for each in sentences)]
    for title, drawing in (drawings or {}).items():
        parts += [f"<h2>{html.escape(title)}</h2>", drawing]
    parts.append("<h2>Queries and their best matches</h2>")
    for row in rows:
        figures = [_figure("query", row.image, row.label)]
        figures += [_figure("match", match.image, match.told(" ")) for match in row.matches]
        parts.append(f"<section>{''.join(figures)}</section>")
    parts += ["<h2>All figures</h2>", "<table>" + "\n".join(_table(statistics, meaning or {})) + "</table>"]
    page = "\n".join([*parts, "</body></html>\n"])
    publish(path, lambda file: file.write(page.encode("utf-8", errors="backslashreplace")))


def written(text: str) -> Picture:
    """The words of a query as a picture, in place of a query image."""
    sheet, font = Image.new("RGB", (TILE, TILE), PAPER), ImageFont.load_default(FONT)
    lines = textwrap.wrap(text, width=TILE * 2 // FONT) or [""]
    ImageDraw.Draw(sheet).multiline_text((TILE / 2, TILE / 2), "\n".join(lines), fill=INK, font=font, anchor="mm")
    return np.asarray(sheet)


def _tile(image: Picture) -> Image.Image:
    """The whole image, centred in a square tile."""
    picture = Image.fromarray(image)
    scale = TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    fitted = picture.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (TILE, TILE), PAPER)
    tile.paste(fitted, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of the text as fits under a tile."""
    if font.getlength(text) <= TILE:
        return text
    while text and font.getlength(text + "…") > TILE:
        text = text[:-1]
    return text + "…"


def format_value(value: Any) -> str:
    """Counts in full, measures with four digits, the first entries of long lists, everything else unchanged."""
    if isinstance(value, Mapping):
        parts = [
            f"{name} ({format_value(each)})" if _nested(each) else f"{name} {format_value(each)}"
            for name, each in value.items()
        ]
        return _first(parts, ", ")
    if isinstance(value, list):
        return _first([format_value(each) for each in value], "; ")
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping | list)


def _first(parts: list[str], between: str) -> str:
    return between.join(parts[:SHOWN]) + (f"{between}.. {len(parts) - SHOWN} more" if len(parts) > SHOWN else "")


def _table(statistics: Mapping[str, Any], meaning: Mapping[str, str]) -> Iterator[str]:
    for name, value in statistics.items():
        cells = (format_value(value), meaning.get(name, ""))
        told = "".join(f"<td>{html.escape(each)}</td>" for each in cells)
        yield f"<tr><th>{html.escape(name.replace('_', ' '))}</th>{told}</tr>"


def _figure(kind: str, image: Picture, caption: str) -> str:
    jpeg = io.BytesIO()
    _tile(image).save(jpeg, format="JPEG", quality=JPEG_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
    text = html.escape(caption)
    return (
        f'<figure class="{kind}"><img width="{TILE}" height="{TILE}" alt="{text}" src="{source}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
