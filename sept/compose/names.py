"""Names that a command line may use: groups, their options, settings."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sept.config import SETTINGS, Experiment

CONF = Path(__file__).resolve().parents[1] / "conf"
CLONE = CONF.parents[1]  # where train.py and search.py are, unless the package is installed
OF_SEVERAL_KINDS = ("finetune", "pretrain", "selector", "retriever.train")
TRAINED = r"((?:pretrain|retriever\.train)\.)"  # recipes of pre-trainings
ARGUMENTS = ("backbone.args", "retriever.backbone.args")  # of a network: any name, timm checks them
OPEN = (*(f"{key}." for key in ARGUMENTS), "pool.sources.")  # settings with open-ended names


def renamed(overrides: Sequence[str]) -> list[str]:
    """`pretrain.from=..` as the field it sets, `start`: a Python keyword cannot name a field."""
    return [re.sub(rf"^([+~]*){TRAINED}from(?==|$)", r"\1\2start", text) for text in overrides]


def written(name: str) -> str:
    """The inverse of `renamed`: the name of a setting on a command line."""
    return re.sub(rf"^{TRAINED}start$", r"\1from", name)


@cache
def defaults() -> dict[str, str]:
    """The option of each group that `python train.py` chooses."""
    chosen: dict[str, str] = {}
    for each in OmegaConf.load(CONF / "config.yaml").defaults:
        if not isinstance(each, str):
            chosen |= {group: option for group, option in each.items() if " " not in group}  # Hydra's own
    return chosen


def own() -> Path | None:
    """The folder `conf` of a person's own project, whose options are chosen like ours; None if there is none."""
    try:
        found = Path.cwd() / "conf"
        return found if found.is_dir() and not found.samefile(CONF) else None
    except OSError:  # the current folder was removed
        return None


def options(group: str) -> list[str]:
    """Names of a group's files, ours and a person's own; none if there is no such group."""
    return _options(group, own()) if group.isidentifier() else []


@cache
def _options(group: str, also: Path | None) -> list[str]:
    return sorted({path.stem for folder in (CONF, also) if folder for path in (folder / group).glob("*.yaml")})


def program(name: str) -> str:
    """How a person starts `train` or `search`."""
    return f"python {name}.py" if (CLONE / f"{name}.py").is_file() else f"sept {name}"


@cache
def known_names() -> list[str]:
    """Every key that a command line may set: `seed`, `pool`, `pool.path`, ..."""
    kinds = [name for key in OF_SEVERAL_KINDS for kind in SETTINGS.values() for name in _names(kind, f"{key}.")]
    return ["experiment", *dict.fromkeys(map(written, _names(Experiment, "") + kinds))]


def is_known(key: str) -> bool:
    """Whether it can be set: a known name, or one of the open-ended names of a network or a pool."""
    return key in known_names() or key.startswith(OPEN)


def unknown_name(key: str) -> str:
    """One-line error for `key` that names the nearest valid keys."""
    if written(key) != key:
        return f"{key}: write {written(key)}"
    line = f"{key}: no such setting; {nearest(key, known_names())}"
    network, _, name = key.rpartition(".")
    if f"{network}.args" not in ARGUMENTS:
        return line
    return f"{line} An argument of the network is set with {network}.args.{name}=VALUE"


def nearest(name: str, names: list[str]) -> str:
    """A suggestion instead of `name`: the most similar of `names`, else the first ones."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return "did you mean " + " or ".join(close) + "?" if close else "known are " + ", ".join(names[:20])


def _names(cls: type, prefix: str) -> list[str]:
    names = []
    for item in fields(cls):
        names.append(prefix + item.name)
        if is_dataclass(item.type):
            names += _names(item.type, f"{prefix}{item.name}.")  # type: ignore[arg-type]
    return names


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting in a dataclass or mapping by its dotted name; a list is one setting."""
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
