"""Charts as inline SVG, whose text and lines take the page's colour."""

import io
import re
import zlib
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from sept.results import family
from sept.tables.charts import Chart, Panel, Point, Series

COLOURS = {  # Okabe and Ito's, distinguishable on light and dark backgrounds and by the colour-blind
    "rand_init": "#8c8c8c",
    "in1k_sup": "#009e73",
    "in1k_ssl": "#cc79a7",
    "foundation": "#8b5a2b",
    "random": "#e69f00",
    "sept": "#0072b2",
    "union_topk": "#56b4e9",
    "classifier": "#d55e00",
    "cluster": "#b8a800",
}
STAGE_COLOURS = (*COLOURS.values(), "#7a5195")  # one after the other
OTHERS = ("#7a5195", "#3d7a5a", "#9c4f2e", "#4d6fae")  # of inits that are not named above
INK = "#010203"  # placeholder for the page's text colour
PANEL = (3.6, 2.7)  # inches
LETTER, HANDLE, ENTRY = 0.075, 0.6, 0.2  # inches of a legend: width of a letter, of mark and gap, height of a line
BAR, CURVE = 0.2, 0.25  # inches of height of a horizontal bar, and of a curve among others
MANY = 3  # panels per line at most
BARS_WIDTH = 0.8  # of the distance between two groups
DECADES = 1.5  # an axis at least this long gets ticks at powers of ten only
MARKERS = "os^vDPX<>hdp"  # of the series of one init
STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "sept",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.fontsize": 8,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def draw(chart: Chart, prefix: str = "figure") -> str:
    """A self-contained `<svg>` element; ids begin with `prefix` and its name."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = io.StringIO()
    with rc_context(STYLE):
        FigureCanvasSVG(_figure(chart)).print_svg(text, metadata={"Date": None})
    return _inline(text.getvalue(), f"{prefix}-{chart.name}-", chart.title)


def _figure(chart: Chart) -> Any:
    """The panels side by side, those with many bars one below the other, above a common legend."""
    from matplotlib.figure import Figure

    crowded = chart.kind == "bars" and max(len(panel.ticks) for panel in chart.panels) > MANY
    columns = 1 if crowded else min(MANY, len(chart.panels))
    lines = -(-len(chart.panels) // columns)
    width = PANEL[0] * columns * (2 if columns == 1 else 1)
    labels = {series.label for panel in chart.panels for series in panel.series}
    abreast = max(1, min(len(labels), int(width / (LETTER * max(map(len, labels)) + HANDLE))))
    height = _height(chart) * lines + ENTRY * (1 + -(-len(labels) // abreast))
    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for ax, panel in zip(axes, chart.panels, strict=False):
        _panel(ax, panel, chart)
    for ax in axes[len(chart.panels) :]:
        ax.set_axis_off()
    if chart.y:
        figure.supylabel(f"{chart.y}, %", fontsize=STYLE["font.size"])
    _legend(figure, axes[: len(chart.panels)], abreast)
    return figure


def _height(chart: Chart) -> float:
    """Of each panel: what is drawn in it is told apart."""
    each = {"stacks": BAR * len(chart.panels[0].ticks), "bars": 0.0}
    return max(PANEL[1], each.get(chart.kind, CURVE * max(len(panel.series) for panel in chart.panels)))


def _panel(ax: Any, panel: Panel, chart: Chart) -> None:
    if chart.kind == "stacks":
        _stacks(ax, panel)
    elif chart.kind == "bars":
        _bars(ax, panel)
    else:
        _curves(ax, panel)
        _ticks(ax, panel, chart.counts)
    ax.set(title=panel.title, xlabel=chart.x)
    ax.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
    ax.set_axisbelow(True)


def _colour(init: str) -> str:
    """The colour of an init, the same in every figure of every report."""
    name = family(init)
    return COLOURS.get(name) or OTHERS[zlib.crc32(name.encode()) % len(OTHERS)]


def _curves(ax: Any, panel: Panel) -> None:
    """Points joined in the order of x, unless x has names, on a logarithmic axis; levels drawn across it."""
    line = "" if panel.names else "-"
    ax.set_xscale("log")
    for series, marker in _marked(panel):
        colour = _colour(series.init)
        if series.level:
            [point] = series.points
            ax.axhline(point.y, color=colour, linestyle="--", linewidth=1, label=series.label)
            if point.paper is not None:
                ax.axhline(point.paper, color=colour, linestyle=":", linewidth=1)
            continue
        x, y = [point.x for point in series.points], [point.y for point in series.points]
        errors = [point.spread or 0 for point in series.points]
        looks = {"color": colour, "marker": marker, "markersize": 5, "capsize": 2, "linewidth": 1.2, "linestyle": line}
        ax.errorbar(x, y, errors, label=series.label, **looks)
        for point in series.points:
            _beside(ax, point, colour, marker)
    if len(panel.front) > 1:
        ax.step(*zip(*panel.front, strict=True), where="post", color=INK, linestyle=":", linewidth=1, zorder=0)
    if panel.crossings:
        ax.plot(*zip(*panel.crossings, strict=True), color=INK, marker="o", markersize=11, mfc="none", linestyle="")


def _ticks(ax: Any, panel: Panel, counts: bool) -> None:
    """Counts are few and get a tick each; other numbers get powers of ten, and values between on a short axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.xaxis.set_minor_formatter(NullFormatter())
    points = [point for series in panel.series if not series.level for point in series.points]
    places = sorted({at for point in points for at in (point.x, point.further) if at is not None})
    if counts:
        _counts(ax, places, panel.names)
        return
    short = places[-1] < places[0] * 10**DECADES
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:.0e}".replace("e+", "e")))


def _counts(ax: Any, places: Sequence[float], names: Mapping[float, str] | None) -> None:
    if names is None:
        ax.set_xticks(places, [_count(at) for at in places])
    else:
        ax.set_xticks(places, [f"{_count(at)} {names[at]}" for at in places], rotation=30, ha="right")


def _count(number: float) -> str:
    """`2k`, `1.2M`."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.0f}"


def _beside(ax: Any, point: Point, colour: str, marker: str) -> None:
    """Marks next to a point: the paper's number, and the same result at its cost including shared artefacts."""
    if point.paper is not None:
        ax.plot([point.x], [point.paper], color=colour, marker="*", markersize=7, mfc="none", linestyle="")
    if point.further is not None:
        ax.plot([point.x, point.further], [point.y] * 2, color=colour, linewidth=0.6, alpha=0.6)
        ax.plot([point.further], [point.y], color=colour, marker=marker, markersize=5, mfc="none", linestyle="")


def _marked(panel: Panel) -> list[tuple[Series, str]]:
    """Each series with its marker; series of one init share a colour."""
    before: dict[str, int] = {}
    marked = []
    for series in panel.series:
        place = before[family(series.init)] = before.get(family(series.init), -1) + 1
        marked.append((series, MARKERS[place % len(MARKERS)]))
    return marked


def _bars(ax: Any, panel: Panel) -> None:
    width = BARS_WIDTH / len(panel.series)
    shades: dict[str, int] = {}
    for place, series in enumerate(panel.series):
        shade = shades[family(series.init)] = shades.get(family(series.init), -1) + 1
        colour = _colour(series.init)
        offset = (place - (len(panel.series) - 1) / 2) * width
        x = [point.x + offset for point in series.points]
        heights = [point.y for point in series.points]
        ax.bar(x, heights, width * 0.92, color=colour, alpha=0.9**shade, hatch="//" * shade, label=series.label)
        for at, point in zip(x, series.points, strict=True):
            ax.errorbar([at], [point.y], [point.spread or 0], color=INK, capsize=2, linewidth=0.8)
            if point.paper is not None:
                ax.plot([at], [point.paper], color=INK, marker="*", markersize=6, mfc="none", linestyle="")
    ax.set_xticks(range(len(panel.ticks)), panel.ticks)
    ax.set_ylim(bottom=0)


def _stacks(ax: Any, panel: Panel) -> None:
    """A horizontal bar for each tick, the first on top, its series one after the other."""
    left = [0.0] * len(panel.ticks)
    for colour, series in zip(cycle(STAGE_COLOURS), panel.series, strict=False):
        widths = [point.y for point in series.points]
        ax.barh(range(len(panel.ticks)), widths, left=left, color=colour, label=series.label)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    ax.set_yticks(range(len(panel.ticks)), panel.ticks)
    ax.invert_yaxis()


def _legend(figure: Any, axes: Any, abreast: int) -> None:
    """One for all panels, each label once."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=abreast)


def _inline(svg: str, prefix: str, title: str) -> str:
    """The element only, without prologue, metadata and namespaces, which a page does not need; ids made unique."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)
    return svg.replace(INK, "currentColor").replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
