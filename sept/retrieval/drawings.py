"""Drawings for the page of a selection, as SVG: similarities by rank, their distributions side by side, a map."""

import html
from collections.abc import Mapping, Sequence

import numpy as np

SIZE = (560, 200)  # pixels, the drawing area of a curve or a histogram
MOST_POINTS = 280  # of a curve: more are indistinguishable
MAP = 420  # pixels, the side of a map
BINS, TICKS = 40, 5
BLUE, GREY, RED = "#1a73e8", "#8888", "#d93025"
BARS = (BLUE, GREY)  # of the groups of a histogram
POINTS = ((GREY, 1.5), (BLUE, 2.5), (RED, 4.0))  # of the groups on a map: colour, and radius in pixels


def histogram(groups: Mapping[str, np.ndarray]) -> str:
    """The distribution of each of two groups of values, on one axis; both have the same area."""
    width, height = SIZE
    values = np.concatenate([*groups.values()])
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = {name: np.histogram(each, edges)[0] / max(len(each), 1) for name, each in groups.items()}
    top = max(share.max() for share in shares.values())
    step, bars = width / BINS, []
    for share, colour in zip(shares.values(), BARS, strict=True):
        for place, part in enumerate(share / top * height):
            bars.append(
                f'<rect x="{place * step:.1f}" y="{height - part:.1f}" width="{step:.1f}" height="{part:.1f}" '
                f'fill="{colour}" fill-opacity=".6"/>'
            )
    marks = [
        f'<text x="{share * width:.0f}" y="{height + 18}" text-anchor="middle">{low + share * (high - low):.2f}</text>'
        for share in np.linspace(0, 1, TICKS)
    ]
    return _svg(width, height + 50, "".join([*bars, *marks, _legend([*groups], height + 38, BARS)]), "similarities")


def curve(similarity: Sequence[float]) -> str:
    """Similarity over rank, ranks counted from 1."""
    values = np.asarray(similarity, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    width, height = SIZE
    ranks = np.unique(np.linspace(0, len(values) - 1, min(MOST_POINTS, len(values))).round().astype(int))
    x = ranks / max(len(values) - 1, 1) * width
    y = (high - values[ranks]) / (high - low or 1) * height
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    marks = []
    for share in np.linspace(0, 1, TICKS):
        at_y, at_x = share * height, share * width
        marks.append(f'<line x1="0" x2="{width}" y1="{at_y:.0f}" y2="{at_y:.0f}" stroke="{GREY}" stroke-opacity=".5"/>')
        marks.append(f'<text x="-6" y="{at_y + 4:.0f}" text-anchor="end">{high - share * (high - low):.3f}</text>')
        rank = 1 + round(share * (len(values) - 1))
        marks.append(f'<text x="{at_x:.0f}" y="{height + 18}" text-anchor="middle">{rank:,}</text>')
    return (
        f'<svg width="{width + 90}" height="{height + 40}" viewBox="-55 -10 {width + 90} {height + 40}" role="img" '
        f'aria-label="mean similarity by rank">{"".join(marks)}'
        f'<polyline points="{points}" fill="none" stroke="{BLUE}" stroke-width="2"/></svg>'
    )


def scatter(groups: Mapping[str, np.ndarray]) -> str:
    """The points (n, 2) of three groups on one map; later groups lie on top."""
    points = np.concatenate([*groups.values()])
    low, span = points.min(0), np.ptp(points, axis=0).max() or 1.0
    marks = []
    for each, (colour, radius) in zip(groups.values(), POINTS, strict=True):
        for x, y in (each - low) / span * MAP:
            marks.append(f'<circle cx="{x:.1f}" cy="{MAP - y:.1f}" r="{radius}" fill="{colour}"/>')
    legend = _legend([*groups], MAP + 24, [colour for colour, _ in POINTS])
    return _svg(MAP, MAP + 34, "".join(marks) + legend, "map of pool, selection and task")


def plane(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (D,) and the two directions (D, 2) along which vectors (n, D) vary most."""
    mean = vectors.mean(0, dtype=np.float64)
    centred = vectors.astype(np.float64) - mean
    _, axes = np.linalg.eigh(centred.T @ centred)
    return mean, axes[:, :-3:-1]


def _legend(names: Sequence[str], y: float, colours: Sequence[str]) -> str:
    parts, x = [], 0.0
    for name, colour in zip(names, colours, strict=True):
        parts.append(f'<rect x="{x:.0f}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15:.0f}" y="{y}">{html.escape(name)}</text>')
        x += 30 + 6.5 * len(name)
    return "".join(parts)


def _svg(width: float, height: float, inner: str, label: str) -> str:
    return (
        f'<svg width="{width + 30}" height="{height + 10}" viewBox="-15 -10 {width + 30} {height + 10}" role="img" '
        f'aria-label="{label}">{inner}</svg>'
    )
