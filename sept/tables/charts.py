"""The figures that a table's rows support, as series of points, independent of drawing.

Each is the counterpart, at the scale of the rows, of a figure or a claim of the paper.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sept.backbones.flops import training_flops
from sept.config import PUBLISHED, Experiment
from sept.paper import published
from sept.results import AUTO, family
from sept.tables import labels
from sept.tables.curves import Crossing, crossings, front
from sept.tables.labels import Line

PUBLISHED_EPOCHS = 300  # of the published pre-trainings on ImageNet-1k
PRINTED_METRICS = {"classify": "top-1", "detect": "mAP", "segment": "mIoU"}
MAX_STACKS = 32  # with more rows, only the most costly of each that differ in compute are shown
MAX_BARS = 8  # side by side; with more, only the smallest budget is shown
NETWORK = "backbone="  # the part of a variant that names it
ERROR_BARS = "Error bars: standard deviation over seeds, or over the fine-tunings of a single one."
POOLED = ("query", "retriever", "method")  # choices that, besides variant, can distinguish series of one init


@dataclass(frozen=True)
class Point:
    """One row: y and paper in percent; spread is its standard deviation, None for a single run."""

    x: float
    y: float
    spread: float | None
    paper: float | None
    further: float | None = None  # x including shared costs in full


@dataclass(frozen=True)
class Series:
    """One line or one colour of bars; init chooses the colour. level: a single point drawn across the panel."""

    label: str
    init: str
    points: tuple[Point, ...]
    level: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes. ticks: names of the places on the x axis, for bars.

    front: (x, y) to join by steps. crossings: (x, y) to ring. names: the name of each x. Such points are not joined, as
    one pool is not always a part of a larger one.
    """

    title: str
    series: tuple[Series, ...]
    ticks: tuple[str, ...] = ()
    names: Mapping[float, str] | None = None
    front: tuple[tuple[float, float], ...] = ()
    crossings: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Chart:
    """One figure of the report."""

    name: str
    title: str
    caption: str
    x: str
    y: str
    kind: Literal["lines", "bars", "stacks"]
    panels: tuple[Panel, ...]
    counts: bool = False  # x is a count: a few whole numbers


def charts(lines: Sequence[Line]) -> list[Chart]:
    """The figures for which these rows have the numbers."""
    known = [line for line in lines if line["n"]]
    found = [_bars(known), _over_budget(known), _over_pool(known), _over_flops(known), _over_carbon(known)]
    found += [_stages(known), _printed_over_flops(lines)]
    return [_explained(chart) for chart in found if chart is not None]


def _explained(chart: Chart) -> Chart:
    """The caption, with an explanation of the marks."""
    points = [point for panel in chart.panels for series in panel.series for point in series.points]
    marks = [ERROR_BARS] if any(point.spread is not None for point in points) else []
    marks += ["Stars: the paper's numbers."] if any(point.paper is not None for point in points) else []
    return replace(chart, caption=" ".join([chart.caption, *marks]))


def _bars(lines: Sequence[Line]) -> Chart | None:
    """SEPT Fig. 1b: the ways to start side by side, a group for each task; a panel for each number of shots."""
    names = [name for name in labels.varying_choices(lines) if name not in ("task", "shot")]
    told = ""
    if len(_ways(lines, names)) > MAX_BARS and "budget" in names:
        least = min(line["budget"] for line in lines if isinstance(line["budget"], int))
        lines = [line for line in lines if line["budget"] in (None, least)]
        told, names = f" Budget: {least:,} images.", [name for name in names if name != "budget"]
    ways = _ways(lines, names)
    if not 2 <= len(ways) <= MAX_BARS:
        return None
    panels = []
    for shot, group in _by(lines, ("shot",)):
        tasks = tuple(dict.fromkeys(line["task"] for line in group))
        series = [
            Series(label, init, tuple(_point(line, tasks.index(line["task"])) for line in members))
            for (label, init) in ways
            if (members := [line for line in group if (labels.label(line, names), line["init"]) == (label, init)])
        ]
        panels.append(Panel(labels.format_choice("shot", *shot), tuple(series), tasks))
    caption = f"Counterpart of the paper's Fig. 1b (there: 100,000 images and ImageNet-1k).{told}"
    return Chart("bars", "Ways to start, side by side", caption, "", labels.metric(lines), "bars", tuple(panels))


def _over_budget(lines: Sequence[Line]) -> Chart | None:
    caption = (
        "Counterpart of the paper's Table 3 and, on one source, of Fig. 4. Dashed: ways to start without a budget."
    )
    placed = [line | {"budget": line["images"]} if line["budget"] == AUTO else line for line in lines]
    what = ("budget", "Accuracy over budget", caption, "pre-training images")
    return _lines(*what, placed, "budget", ("pool", "compute"))


def _over_pool(lines: Sequence[Line]) -> Chart | None:
    caption = "Counterpart of the paper's Table 5. Dashed: ways to start without a pool."
    pooled = [line | _of_pool(line) for line in lines]
    what = ("pool", "Accuracy over pool size", caption, "images in the pool")
    chart = _lines(*what, pooled, "pool_images", ("budget", "compute"))
    if chart is None:
        return None
    return replace(chart, panels=tuple(replace(panel, names=_pools(pooled)) for panel in chart.panels))


def _pools(lines: Sequence[Line]) -> dict[float, str]:
    """The names of the pools of each size."""
    found: dict[float, list[str]] = {}
    for line in lines:
        if line["pool_images"] is not None:
            found.setdefault(line["pool_images"], []).append(line["pool"])
    return {images: ", ".join(dict.fromkeys(names)) for images, names in found.items()}


def _of_pool(line: Line) -> dict[str, Any]:
    """A variant that is a size or source of the pool is no separate series; without a pool there is no size."""
    settings = (line["variant"] or "").split(", ")
    variant = None if all(each.startswith("pool.") for each in settings) else line["variant"]
    return {"variant": variant} | ({"pool_images": None} if line["pool"] is None else {})


def _over_flops(lines: Sequence[Line]) -> Chart | None:
    caption = (
        "Filled: the run's own compute. Hollow: including everything computed once per pool (retriever, "
        "embedding of the pool, index). The cost of published checkpoints is not counted."
    )
    what = ("flops", "Accuracy over compute", caption, "FLOPs")
    chart = _lines(*what, lines, "flops", _apart(lines), "shared_flops")
    return None if chart is None else _with_crossings(_with_front(chart), lines)


def _over_carbon(lines: Sequence[Line]) -> Chart | None:
    caption = (
        "Energy where it was measured, else modelled from seconds, times the grid's intensity (carbon=). Filled: the "
        "run's own. Hollow: including everything computed once per pool."
    )
    what = ("carbon", "Accuracy over CO2e", caption, "kg CO2e")
    chart = _lines(*what, lines, "co2e_kg", _apart(lines), "shared_co2e_kg")
    return None if chart is None else _with_front(chart)


def _apart(lines: Sequence[Line]) -> tuple[str, ...]:
    """What separates lines over compute: the number of images too, where it does not say how long a training is."""
    fixed = any(line["budget"] is not None and line["cell"].compute.epochs is None for line in lines)
    return ("pool", "budget") if fixed else ("pool",)


def _with_front(chart: Chart) -> Chart:
    """With the Pareto front of each panel: what no other row reaches with less."""
    caption = f"{chart.caption} Dotted: the Pareto front, the best for no more, without published weights."
    panels = tuple(replace(panel, front=_front(panel)) for panel in chart.panels)
    return replace(chart, caption=caption, panels=panels)


def _front(panel: Panel) -> tuple[tuple[float, float], ...]:
    """What published weights cost is not counted, so they are left out."""
    counted = (s for s in panel.series if not s.level and family(s.init) not in PUBLISHED and " from " not in s.init)
    return front((point.x, point.y) for series in counted for point in series.points)


def _with_crossings(chart: Chart, lines: Sequence[Line]) -> Chart:
    """With the budgets from which a larger network is ahead of a smaller one, where rows differ in the network."""
    found = {_title(held): [*_crossings(group)] for held, group in _by(lines, ("task", "shot"))}
    told = [each.told for panel in chart.panels for each in found[panel.title]]
    if not told:
        return chart
    panels = (
        replace(panel, crossings=tuple(each.place for each in found[panel.title] if each.place is not None))
        for panel in chart.panels
    )
    caption = f"{chart.caption} Rings: where the means of two networks cross. {' '.join(dict.fromkeys(told))}"
    return replace(chart, caption=caption, panels=tuple(panels))


def _crossings(lines: Sequence[Line]) -> Iterator[Crossing]:
    """Those of the networks of rows that are alike otherwise."""
    names = [name for name in labels.varying_choices(lines) if name not in ("task", "shot", "compute", "variant")]
    groups: dict[str, dict[str, list[Line]]] = {}
    for line in lines:
        settings = (line["variant"] or "").split(", ")
        network = next((each.removeprefix(NETWORK) for each in settings if each.startswith(NETWORK)), None)
        if network is not None and line.get("flops") is not None:
            rest = [each for each in settings if not each.startswith(NETWORK)]
            told = ", ".join([labels.label(line, names), *rest])
            groups.setdefault(told, {}).setdefault(network, []).append(line)
    for told, members in groups.items():
        ascending = sorted(members, key=lambda name: _image_flops(members[name][0]["cell"]))
        curves = {name: sorted((line["flops"], line["mean"]) for line in members[name]) for name in ascending}
        yield from crossings(told, curves)


def _image_flops(e: Experiment) -> float:
    """The size of a network: FLOPs of training on an image of the side of pre-training."""
    return training_flops(e.backbone, e.pretrain.side)


def _printed_over_flops(lines: Sequence[Line]) -> Chart | None:
    """The paper's printed accuracies over the FLOPs that its pre-trainings take by our count: no training needed."""
    placed = [
        line | {"mean": line["paper"], "std": None, "paper": None, "counted": _pretraining_flops(line["cell"])}
        for line in lines
        if line["paper"] is not None
    ]
    caption = (
        "Accuracies as printed in the paper; FLOPs of the pre-training alone by our count, published checkpoints as "
        "300 epochs of ImageNet-1k. Without retriever and embedding."
    )
    what = ("printed", "The paper's accuracies over counted compute", caption, "FLOPs")
    chart = _lines(*what, [line for line in placed if line["counted"]], "counted", ("pool",))
    measures = {PRINTED_METRICS[line["cell"].finetune.fits] for line in placed}
    y = measures.pop() if len(measures) == 1 else "score"
    return None if chart is None else _with_front(replace(chart, y=y, counts=False))


def _stages(lines: Sequence[Line]) -> Chart | None:
    """What a run of each row has cost, stage upon stage."""
    names, told = labels.varying_choices(lines), ""
    if len(lines) > MAX_STACKS:
        names = [name for name in names if name != "compute"]
        dearest = {labels.label(line, names): line for line in sorted(lines, key=lambda line: line.get("flops") or 0)}
        lines = [line for line in lines if dearest[labels.label(line, names)] is line]
        told = " Of rows that differ in how long the pre-training is, the longest."
    if not 1 < len(lines) <= MAX_STACKS:
        return None
    costs = [_stage_flops(line["runs"]) for line in lines]
    stages = {stage: None for each in costs for stage in each}
    series = tuple(
        Series(stage, stage, tuple(Point(x, each.get(stage, 0.0), None, None) for x, each in enumerate(costs)))
        for stage in stages
    )
    if len(series) < 2:
        return None
    caption = f"Mean over the runs of a row. Shared: computed once per pool or task, however many runs use it.{told}"
    panel = Panel("", series, tuple(labels.label(line, names) for line in lines))
    return Chart("stages", "The cost of a run by stage", caption, "FLOPs", "", "stacks", (panel,))


def _stage_flops(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """FLOPs of a run by stage, without stages that have none."""
    found: dict[str, float] = {}
    for run in runs:
        for each in run["artefacts"]:
            name = f"{each['stage']} (shared)" if each["shared"] else each["stage"]
            found[name] = found.get(name, 0.0) + each["flops"] / len(runs)
    return {stage: flops for stage, flops in found.items() if flops}


def _pretraining_flops(e: Experiment) -> float:
    """Of the pre-training behind a row; 0 for random weights."""
    if e.pretrains and e.budget.images is not None and e.compute.epochs is not None:
        return e.compute.epochs * e.budget.images * e.pretrain.flops(e.backbone)
    views = {"in1k_ssl": e.pretrain.flops(e.backbone), "in1k_sup": _image_flops(e)}
    return PUBLISHED_EPOCHS * published("in1k").images * views.get(e.init.name, 0.0)


def _lines(
    name: str,
    title: str,
    caption: str,
    x: str,
    lines: Sequence[Line],
    column: str,
    apart: Sequence[str],
    further: str | None = None,
) -> Chart | None:
    """A panel for each task and number of shots with at least two values on the x axis.

    apart: choices that, besides init, query, retriever and variant, separate series. further: a column to add.
    """
    panels = []
    for held, group in _by(lines, ("task", "shot")):
        varying = [each for each in labels.varying_choices(group) if each in ("init", *POOLED, *apart, "variant")]
        series = tuple(_series(group, column, varying, further))
        if len({point.x for each in series if not each.level for point in each.points}) > 1:
            panels.append(Panel(_title(held), series))
    return (
        Chart(name, title, caption, x, labels.metric(lines), "lines", tuple(panels), further is None)
        if panels
        else None
    )


def _title(held: tuple[Any, ...]) -> str:
    """Of the panel of a task and a number of shots."""
    return f"{held[0]}, {labels.format_choice('shot', held[1])}"


def _series(lines: Sequence[Line], column: str, names: Sequence[str], further: str | None) -> Iterator[Series]:
    for label, init in _ways(lines, names):
        members = [line for line in lines if (labels.label(line, names), line["init"]) == (label, init)]
        placed = [line for line in members if line.get(column) is not None]
        if placed:
            points = [_point(line, line[column], further) for line in placed]
            yield Series(label, init, tuple(sorted(points, key=lambda point: point.x)))
        elif members:
            yield Series(label, init, (_point(members[0], 0),), level=True)


def _point(line: Line, x: float, further: str | None = None) -> Point:
    shared = line.get(further) if further else None
    return Point(x, line["mean"], line.get("std"), line["paper"], x + shared if shared else None)


def _ways(lines: Sequence[Line], names: Sequence[str]) -> list[tuple[str, str]]:
    """(label, init) of each way to start, in the order of the rows."""
    return list(dict.fromkeys((labels.label(line, names), line["init"]) for line in lines))


def _by(lines: Sequence[Line], names: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], list[Line]]]:
    """The rows grouped by these choices, in their order."""
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(tuple(line[name] for name in names), []).append(line)
    yield from groups.items()
