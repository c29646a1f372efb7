"""From a command line to checked experiments: only this package, `train.py` and `search.py` use Hydra.

`load` turns a composed config into an `Experiment`; no later code sees a DictConfig.
"""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sept import paths
from sept.compose.composition import composed, option, parse, register, schema
from sept.compose.names import (
    CONF,
    OF_SEVERAL_KINDS,
    OPEN,
    defaults,
    known_names,
    nearest,
    options,
    program,
    renamed,
    written,
)
from sept.compose.overrides import (
    COMPLETION,
    MULTIRUN,
    check_hydra,
    check_overrides,
    check_selector,
    completed,
    is_hydras,
    one_line,
    usage,
    with_own,
)
from sept.config import SETTINGS, Experiment
from sept.data.locate import ARCHIVES
from sept.errors import ConfigError

__all__ = [
    "BASIC",
    "COMPLETION",
    "CONF",
    "MULTIRUN",
    "OPEN",
    "Asked",
    "asked",
    "check_hydra",
    "check_overrides",
    "completed",
    "defaults",
    "expand",
    "experiment",
    "hand_over",
    "known_names",
    "load",
    "one_line",
    "option",
    "options",
    "program",
    "register",
    "renamed",
    "usage",
    "written",
]

BASIC = "basic"  # Hydra's default launcher: one cell after the other, in this process
TABLE = "+table="


def load(cfg: Any, expanded: bool = True) -> Experiment:
    """The checked `Experiment` of a config that Hydra composed; `expanded`: it is a cell of a sweep.

    Raises ConfigError, with a one-line message, for an unknown field, a wrong type or value, a table that did not
    expand, and contradictory choices.
    """
    kinds: list[Any] = [OmegaConf.get_type(OmegaConf.select(cfg, key)) for key in OF_SEVERAL_KINDS]
    assert all(kind in SETTINGS.values() for kind in kinds), "every option of these groups names its settings"
    with one_line():
        # Merging into the schema again refuses what `+field=` added past Hydra's checks.
        merged = OmegaConf.merge(schema(tuple(kinds)), OmegaConf.to_container(cfg))
    assert isinstance(merged, DictConfig)
    return _checked(merged, expanded)


def experiment(overrides: Sequence[str], expanded: bool = False) -> Experiment:
    """The experiment that `python train.py` with these overrides runs; `expanded`: they are one cell of a sweep."""
    check_selector(overrides)
    with one_line():
        cfg = composed(completed(overrides)).config
    return _checked(cfg, expanded)


def _checked(cfg: DictConfig, expanded: bool) -> Experiment:
    if cfg.table is not None and not expanded:
        raise ConfigError(
            f"table={cfg.table} did not expand into cells: write `+table={cfg.table}`, one table per command"
        )
    with one_line():
        # Resolved once, at the end: a path may contain what would be an interpolation if resolved again.
        found = OmegaConf.to_object(cfg)
    assert isinstance(found, Experiment)
    _settle_paths(found)
    _settle_names(found)
    found.check()
    if not expanded:
        found.check_unused()
    return found


def _settle_paths(e: Experiment) -> None:
    """Blank ones are refused, and `~` is expanded: Hydra accepts it only in quotes, where no shell expands it."""
    paths.check_environment()
    holders: list[tuple[str, Any, str]] = [("pool", e.pool, "path"), ("task", e.task, "path")]
    holders += [("task", e.task, "class_list"), ("query", e.query, "path"), ("store", e.store, "root")]
    holders += [("init", e.init, "weights"), ("retriever", e.retriever, "weights"), ("index", e.index, "uri")]
    holders += [("pretrain", e.pretrain, "start"), ("retriever.train", e.retriever.train, "start")]
    holders += [(f"pool.sources.{name}", source, "path") for name, source in e.pool.sources.items()]
    for group, holder, name in holders:
        value = getattr(holder, name)
        if value is not None:
            setattr(holder, name, paths.settled(written(f"{group}.{name}"), value))


def _settle_names(e: Experiment) -> None:
    """A pool or a task without a name is called like its folder or file; one that is called like another option of its
    group (`food101`, whose classes and splits may be others), like its kind and that."""
    for group, holder in (("pool", e.pool), ("task", e.task)):
        if not holder.name:
            name = paths.called(holder.path, holder.kind in ARCHIVES) if holder.path else ""
            taken = name in options(group) and name != holder.kind
            holder.name = f"{holder.kind}-{name}" if taken else name or holder.kind


@dataclass(frozen=True)
class Asked:
    """What a command line asks for.

    cells: the overrides of each, in order. expanded: whether they form a sweep. table: the sweep's name, if any. here:
    whether they run one after the other in this process. by_hydra: whether Hydra has to launch them, because of its own
    flags or settings or for other processes; with its flags there are no cells.
    """

    cells: list[list[str]]
    expanded: bool = False
    table: str | None = None
    here: bool = True
    by_hydra: bool = False


def asked(arguments: Sequence[str]) -> Asked:
    """Raises ConfigError for values that cannot be read."""
    if any(text.startswith("-") and text not in MULTIRUN for text in arguments):
        return Asked([], by_hydra=True)
    overrides = [text for text in arguments if text not in MULTIRUN]
    settings = any(is_hydras(text) for text in overrides)
    table = next((text.removeprefix(TABLE) for text in overrides if text.startswith(TABLE)), None)
    if table is None and len(overrides) == len(arguments):
        return Asked([overrides], by_hydra=settings)
    cells, launcher = _spread(overrides)
    here = launcher == BASIC
    return Asked(cells, expanded=True, table=table, here=here, by_hydra=settings or not here)


def hand_over(arguments: Sequence[str]) -> None:
    """Prepares Hydra's own start: registers the schema, and puts the arguments where it reads them."""
    register()
    given = completed(arguments)
    overrides = (at for at, text in enumerate(given) if "=" in text and not text.startswith("-"))
    first = next(overrides, len(given))  # Hydra reads overrides in one piece
    sys.argv[1:] = [*given[:first], *with_own(), *given[first:]]


def expand(name: str, overrides: Sequence[str] = ()) -> list[Experiment]:
    """Every cell of table `name`, narrowed or widened by command-line overrides."""
    if name not in options("table"):
        raise ConfigError(f"there is no table {name}; " + nearest(name, options("table")))
    return [experiment(cell, expanded=True) for cell in _spread([f"{TABLE}{name}", *overrides])[0]]


def _spread(overrides: Sequence[str]) -> tuple[list[list[str]], str]:
    """The cells of these overrides, in Hydra's order, and the launcher chosen; for a table including its own choices
    unless overridden."""
    with one_line():
        chosen = [text for text in overrides if text.startswith((TABLE, "hydra/"))]
        whole = composed(chosen)
        params = whole.hydra.get("sweeper", {}).get("params", {})
        of_table = renamed([f"{key}={value}" for key, value in params.items()])
        given = [text for text in completed(overrides) if text not in chosen]
        choices = []
        for each in parse([*{text.split("=", 1)[0]: text for text in (*of_table, *given)}.values()]):
            swept = each.is_sweep_override()
            values = each.sweep_string_iterator() if swept else [each.get_value_element_as_str()]
            choices.append([f"{each.get_key_element()}={value}" for value in values])
        tables = [text for text in chosen if text.startswith(TABLE)]
        return [[*tables, *cell] for cell in itertools.product(*choices)], whole.launcher
