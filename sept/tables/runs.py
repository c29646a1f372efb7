"""The command that makes one run again, told from its experiment: the groups' options, then each setting that differs.

It says all that a result depends on but the precision: hardware, logging and the store are left to whoever runs it.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from sept.compose import CONF, defaults, experiment, option
from sept.config import Experiment
from sept.errors import ConfigError
from sept.paths import quoted

GROUPS = (
    "pool",
    "retriever",
    "index",
    "query",
    "init",
    "selector",
    "backbone",
    "pretrain",
    "finetune",
    "task",
)  # named by their option's file
APART = ("hardware.", "engine.", "logger.", "store.", "table", "plan")
PLACES = ("pool.path", "task.path", "task.class_list", "init.weights", "retriever.weights")  # some options need one
PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
WORDS = ("null", "true", "false", "inf", "nan")  # that Hydra reads as something else


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting below a dataclass or mapping by its dotted name; lists are settings."""
    if is_dataclass(value):
        parts = {item.name: getattr(value, item.name) for item in fields(value)}
    elif isinstance(value, Mapping):
        parts = dict(value)
    else:
        return {prefix: value}
    return {
        name: leaf
        for part, inner in parts.items()
        for name, leaf in leaves(inner, f"{prefix}.{part}" if prefix else part).items()
    }


def command(e: Experiment) -> str:
    """A line for a shell that computes this cell, or finds it, by itself."""
    wanted = leaves(e)
    for chosen in _choices(e):
        try:
            base = _composed(chosen)
            break
        except ConfigError:  # an option without a path of its own: say where it is
            continue
    else:
        chosen, base = (), _composed(())
    changed = [
        f"{'' if name in base else '+'}{option(name)}={_text(value)}"
        for name, value in wanted.items()
        if not name.startswith(APART) and (name not in base or base[name] != value)
    ]
    dropped = [f"~{name}" for name in base if name not in wanted and not name.startswith(APART)]
    return shlex.join(["python", "train.py", *chosen, *changed, *dropped])


def _choices(e: Experiment) -> list[tuple[str, ...]]:
    """Options that differ from the default ones, alone and with the paths that some of them need."""
    default = defaults()
    options = {group: getattr(e, group).name for group in GROUPS}
    chosen = tuple(
        f"{group}={name}"
        for group, name in options.items()
        if name != default[group] and (CONF / group / f"{name}.yaml").exists()
    )
    wanted = leaves(e)
    return [chosen, (*chosen, *(f"{name}={_text(wanted[name])}" for name in PLACES if wanted[name] is not None))]


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
