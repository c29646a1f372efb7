"""The command that reproduces a run, derived from its experiment: the groups' options, then each setting that differs.

It contains all that a result depends on except the precision; hardware, logging and the store are left to the user.
"""

import re
import shlex
from dataclasses import asdict
from functools import cache
from typing import Any

from sept.backbones import Backbone
from sept.compose import OPEN, defaults, experiment, option, options, program, written
from sept.compose.names import leaves
from sept.config import Experiment
from sept.errors import ConfigError
from sept.paths import quoted

NAMED = ("retriever", "index", "query", "pretrain", "finetune")  # named by the option's file
IMPLIED = ("retriever", "backbone", "pretrain", "finetune")  # that pools and tasks of one's own choose
OF_DATA = ("pool", "task")  # the same, or called like the data by an option that leaves the name open
VALUED = ("budget", "compute", "shot")  # options that are recognised by their values
APART = ("hardware.", "engine.", "logger.", "store.", "table", "plan", "advise", "export")
PLACES = ("pool.path", "task.path", "task.class_list", "init.weights", "retriever.weights")  # some options need one
PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
WORDS = ("null", "true", "false", "inf", "nan")  # which Hydra does not read as strings


def command(e: Experiment) -> str:
    """A shell command that computes this cell, or finds it in the store."""
    wanted = leaves(e)
    for chosen in _choices(e):
        try:
            base = _composed(chosen)
            break
        except ConfigError:  # an option without a default path: give the path
            continue
    else:
        chosen, base = (), _composed(())
    changed = [
        f"{'' if name in base or name.startswith(OPEN) else '+'}{written(name)}={_text(value)}"
        for name, value in wanted.items()
        if not name.startswith(APART) and (name not in base or base[name] != value)
    ]
    dropped = [f"~{name}" for name in base if name not in wanted and not name.startswith(APART)]
    return " ".join([program("train"), shlex.join([*chosen, *changed, *dropped])])


def _choices(e: Experiment) -> list[tuple[str, ...]]:
    """Options that differ from the default ones, without and with the paths that some of them need."""
    default, told = defaults(), {group: getattr(e, group).name for group in NAMED} | _initial(e)
    told |= {group: _reading(group, getattr(e, group)) for group in OF_DATA}
    told |= {group: option_of(group, getattr(e, group)) for group in VALUED} | {"backbone": _nearest(e.backbone)}
    elsewhere = any(told[group] != default[group] for group in OF_DATA)
    chosen = [
        f"{group}={name}"
        for group, name in told.items()
        if name in options(group) and (name != default[group] or (elsewhere and group in IMPLIED))
    ]
    if told["backbone"] is None:
        chosen.append(f"backbone.name={_text(e.backbone.name)}")
    name, network = e.retriever.name, e.retriever.backbone.name
    if name in options("retriever") and option("retriever", name)["backbone"]["name"] != network:
        # The option too, since the network's name alone would select another one.
        chosen = list(dict.fromkeys([*chosen, f"retriever={name}", f"retriever.backbone.name={_text(network)}"]))
    wanted = leaves(e)
    return [tuple(chosen), (*chosen, *(f"{key}={_text(wanted[key])}" for key in PLACES if wanted[key] is not None))]


def _initial(e: Experiment) -> dict[str, str | None]:
    """The named combination of initial weights and selector, such as `init=sept`; else both settings."""
    selector = option_of("selector", e.selector) or e.selector.name
    if e.pretrains and selector in options("init"):
        return {"init": selector}
    return {"init": e.init.name, "selector": selector}


def option_of(group: str, settings: Any) -> str | None:
    """The option of a group with exactly these values."""
    return next((name for name, said in _said(group).items() if said == asdict(settings)), None)


def _reading(group: str, settings: Any) -> str | None:
    """The option of the pool's or the task's name and kind, else the one that takes any data of this kind."""
    if settings.name in options(group) and option(group, settings.name)["kind"] == settings.kind:
        return str(settings.name)
    return next((name for name, of in _said(group).items() if not of["name"] and of["kind"] == settings.kind), None)


def _nearest(backbone: Backbone) -> str | None:
    """The option for this network that sets most of its arguments, and no others."""
    alike = {
        name: sum(backbone.args[key] == value for key, value in said["args"].items())
        for name, said in _said("backbone").items()
        if said["name"] == backbone.name and said["args"].keys() <= backbone.args.keys()
    }
    return max(alike, key=lambda name: alike[name], default=None)


@cache
def _said(group: str) -> dict[str, dict[str, Any]]:
    return {name: option(group, name) for name in options(group)}


@cache
def _composed(chosen: tuple[str, ...]) -> dict[str, Any]:
    return leaves(experiment(chosen))


def _text(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return quoted(value)
