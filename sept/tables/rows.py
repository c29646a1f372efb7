"""The rows of a table: each comparison of a sweep, with its runs from the store, next to the paper's number."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sept.compose.names import leaves
from sept.config import Experiment
from sept.errors import SeptError
from sept.pipeline import Pipeline
from sept.results import CELL, annotation, choices, remarks, row
from sept.runtime.hardware import resolve
from sept.store import Store
from sept.tables.labels import Line
from sept.tables.namesakes import GROUPS, Apart, name_in, told_apart
from sept.tables.paper import printed
from sept.tables.statistics import gain, independent

MEAN_OF = {
    "mean": "score",
    "frozen_mean": "frozen_top1",
    "probe_mean": "probe_top1",
    "chance": "chance",
    "floor": "floor",
    "ap_mean": "ap",
    "ap50_mean": "ap50",
    "ap75_mean": "ap75",
    "images": "images",
    "pool_images": "pool_images",
    "flops": "flops",
    "shared_flops": "shared_flops",
    "wall_s": "wall_s",
    "shared_wall_s": "shared_wall_s",
    **{name: name for name in ("cpu_s", "gpu_s", "kwh", "shared_kwh", "co2e_kg", "shared_co2e_kg")},
}
SPREAD_OF = {"std": "score", "frozen_std": "frozen_top1", "probe_std": "probe_top1"}
SEEN = {
    "task.name",
    "init.name",
    "selector.name",
    "selector.source",
    "selector.share",
    "budget.images",
    "query.name",
    "retriever.name",
    "include_task",
}
SEEN |= {"pool.name", "shot.per_class", "shot.share", "pretrain.name"}
SEEN |= {f"compute.{name}" for name in ("epochs", "images", "include", "tasks")}


@dataclass
class _Group:
    """The runs of one comparison, each once, although a sweep may contain it repeatedly (rand_init at every budget)."""

    named: dict[str, Any]
    unseeded: Experiment
    wanted: set[str] = field(default_factory=set)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, Experiment] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def rows(cells: Iterable[Experiment]) -> list[Line]:
    """A row for each comparison, in the order of the sweep: mean and deviation over the seeds of its finished runs.

    A cell whose data or weights are not on this machine, or whose artefact is damaged, counts as missing with a reason;
    one whose last attempt failed counts as failed.
    """
    cells = [*cells]
    apart = told_apart(cells)
    groups: dict[tuple[str, str], _Group] = {}
    keys: dict[str, str] = {}
    stores: dict[str, Store] = {}
    for e in cells:
        if e.store.root not in stores:
            stores[e.store.root] = Store(e.store.root, mode="read-only")
        unseeded = replace(e, seed=0, finetune=replace(e.finetune, seed=0))
        text = _text(leaves(unseeded))
        if text not in keys:
            keys[text] = _key(unseeded, text)  # distinguishes cells that no column distinguishes
        named = _named(e, apart)
        group = groups.setdefault((_text(named), keys[text]), _Group(named, unseeded))
        _look(group, e, stores[e.store.root])
    variants = _variants([*groups.values()])
    lines = [_line(group, variant) for group, variant in zip(groups.values(), variants, strict=True)]
    return [line | _gain(line, lines) for line in lines]


def _look(group: _Group, e: Experiment, store: Store) -> None:
    """Adds the run of one cell from the store."""
    known = f"{e.seed}.{e.finetune.seed}"  # used until it has a key
    done = failure = None
    try:
        pipeline = _pipeline(e)
        step = pipeline.run
        known = step.key
        done = row(e, step, store, pipeline.untrained)
        failure = store.failure(step) if done is None else None
    except SeptError as error:
        group.refusals.append(str(error))
    group.wanted.add(known)
    if done is not None:
        group.runs[done["key"]], group.experiments[done["key"]] = done, e
    elif failure:
        group.failures[known] = failure


def _pipeline(e: Experiment) -> Pipeline:
    return Pipeline(e, resolve(e.hardware))


def _key(unseeded: Experiment, text: str) -> str:
    try:
        return _pipeline(unseeded).run.key
    except SeptError:  # without its data on this machine it has no key
        return text


def _named(e: Experiment, apart: Apart) -> dict[str, Any]:
    """The choices that are columns."""
    named = {name: value for name, value in choices(e).items() if name in CELL}
    return named | {group: name_in(apart, group, getattr(e, group)) for group in GROUPS if named[group] is not None}


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, default=str)


def _line(group: _Group, variant: str | None) -> Line:
    runs = [*group.runs.values()]
    return {
        **group.named,
        "variant": variant,
        "annotation": annotation(group.unseeded),
        "metric": runs[0]["metric"] if runs else None,
        "n": len(runs),
        "seeds": len({run["seed"] for run in runs}),
        **_summary(runs),
        "paper": printed(group.named, group.unseeded.backbone.architecture),
        "remarks": ", ".join(_remarks(runs)),
        "status": _status(group),
        "reason": next(iter([*group.failures.values(), *group.refusals]), None),
        "runs": runs,
        "experiments": [*group.experiments.values()],
        "cell": group.unseeded,
    }


def _summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Means, and deviations if there are several runs, over seeds or over the fine-tunings of a single one; only for
    the measures of the metric."""
    values = {}
    for name, source in (MEAN_OF | SPREAD_OF).items():
        known = independent(runs, source)
        if len(known) > (name in SPREAD_OF):
            values[name] = (statistics.stdev if name in SPREAD_OF else statistics.fmean)(known)
    return values


def _remarks(runs: list[dict[str, Any]]) -> list[str]:
    """Those of `sept.results` on the mean of the runs, whose gains over random weights count once a seed."""
    if not runs:
        return []
    floors = [run["floor"] for run in runs if run["floor"] is not None]
    probes = [run["probe_top1"] for run in runs if run["probe_top1"] is not None]
    return remarks(
        statistics.fmean(run["score"] for run in runs),
        runs[0]["tests"],
        runs[0]["chance"],
        statistics.fmean(floors) if floors else None,
        _gains(runs, "score", "untrained"),
        statistics.fmean(probes) if probes else None,
        _gains(runs, "probe_top1", "probe_untrained"),
    )


def _gains(runs: list[dict[str, Any]], name: str, over: str) -> list[float]:
    """The difference of two measures, one a seed: fine-tunings of one seed are averaged."""
    gaps: dict[int, list[float]] = {}
    for run in runs:
        if run[over] is not None:
            gaps.setdefault(run["seed"], []).append(run[name] - run[over])
    return [statistics.fmean(each) for each in gaps.values()]


def _status(group: _Group) -> str:
    """Empty if every run is finished and none was resumed."""
    failed = len(group.failures)
    absent = len(group.wanted) - len(group.runs) - failed
    resumed = sum(run["status"] == "resumed" for run in group.runs.values())
    parts = [f"{resumed} resumed"] if resumed else []
    for count, what in ((failed, "failed"), (absent, "missing")):
        if count:
            parts.append(what if count == len(group.wanted) else f"{count} of {len(group.wanted)} {what}")
    return ", ".join(parts)


def _variants(groups: list[_Group]) -> list[str | None]:
    """For comparisons with equal columns, the settings that distinguish them."""
    experiments, names = [group.unseeded for group in groups], [_text(group.named) for group in groups]
    several = Counter(names)
    told: list[str | None] = []
    for e, name in zip(experiments, names, strict=True):
        if several[name] == 1:
            told.append(None)
            continue
        alike = [leaves(other) for other, same in zip(experiments, names, strict=True) if same == name]
        apart = {
            setting: value
            for setting, value in leaves(e).items()
            if setting not in SEEN and any(other.get(setting) != value for other in alike)
        }
        told.append(", ".join(f"{setting}={value}" for setting, value in _in_short(apart, e).items()))
    return told


def _in_short(apart: dict[str, Any], e: Experiment) -> dict[str, Any]:
    """`backbone=resnet_micro` rather than each of its arguments, where the network is that of an option."""
    from sept.overrides import option_of  # composes options: slow to import

    named = option_of("backbone", e.backbone)
    if named is None or not any(setting.startswith("backbone.") for setting in apart):
        return apart
    return {"backbone": named} | {name: value for name, value in apart.items() if not name.startswith("backbone.")}


def _gain(line: Line, lines: list[Line]) -> dict[str, Any]:
    """The gain of a row selected by similarity over its row of random images."""
    over = gain(line, lines)
    if over is None:
        return {}
    found: dict[str, Any] = {"gain": over.mean, "gain_n": over.n}
    if over.within_noise is not None:
        found |= {"gain_low": over.low, "gain_high": over.high, "within_noise": "yes" if over.within_noise else "no"}
    return found
