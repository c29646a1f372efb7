"""Command-line overrides: completed; all errors about them in one line; the text of `--help`."""

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import YAMLError

from sept.compose.composition import HYDRA, PRIMARY, parse, register
from sept.compose.names import (
    CONF,
    OF_SEVERAL_KINDS,
    defaults,
    is_known,
    known_names,
    nearest,
    options,
    own,
    program,
    renamed,
    unknown_name,
    written,
)
from sept.config import SETTINGS, Experiment
from sept.errors import ConfigError, StorageError
from sept.paths import quoted
from sept.ranges import format_value

MULTIRUN = ("-m", "--multirun")
COMPLETION = {"-sc", "--shell-completion"}  # what follows is for Hydra
NETWORKS = {"backbone.name": ("backbone", ""), "retriever.backbone.name": ("retriever", "backbone@retriever.backbone")}
ANY = "timm"  # the option that takes any network, with no arguments set
HELD = (("store", "root"), ("pool", "path"), ("task", "path"), ("query", "path"))  # not for Hydra's files
WIDTH = 110  # characters, of the lists of options
ADDED = {  # groups without a default: `+table=NAME`
    "experiment": "A named choice of the groups below.",
    "table": "A named sweep: the paper's tables and figures, and their counterparts in the embedded world.",
}
USAGE = """\
usage: {program} [GROUP=OPTION ..] [KEY=VALUE ..]

{purpose}

{groups}

KEY=VALUE: any setting; --cfg job prints all with their values. Several values and -m make a sweep: seed=0,1,2 -m
Any timm network: backbone.name=NAME backbone.args.KEY=VALUE, and retriever.backbone.name=NAME likewise
Completion of groups and options in bash (zsh, fish): eval "$({program} -sc install=bash)"
Hydra's own flags: --hydra-help"""


def completed(overrides: Sequence[str]) -> list[str]:
    """`renamed`, and with the option that `backbone.name=NAME` implies if none is chosen: timm's network of that name
    with timm's defaults, not with the arguments of the default option."""
    keys = {text.lstrip("+").partition("=")[0] for text in overrides if "=" in text}
    implied = [
        f"{group}={ANY}" for key, (group, inner) in NETWORKS.items() if key in keys and not keys & {group, inner}
    ]
    return [*renamed(overrides), *implied]


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse a command line that names an unknown key or option, naming the nearest valid one."""
    if COMPLETION & {*overrides}:
        return
    tables = ",".join(override.partition("=")[2] for override in overrides if override.startswith("+table="))
    if "," in tables:
        raise ConfigError(f"+table={tables}: one table per command")
    for override in overrides:
        _check_sweep(override)
        key, equals, value = override.partition("=")
        key = key.lstrip("+~").partition("@")[0]
        if not equals or key.startswith("hydra") or key.startswith("-"):
            continue
        known = options(key)
        if known:
            for choice in value.split(","):
                if choice not in known:
                    raise ConfigError(f"{key}={choice}: no such option; " + nearest(choice, known))
        elif not is_known(key):
            raise ConfigError(unknown_name(key))
    check_selector(overrides)


def _check_sweep(override: str) -> None:
    """Refuse what asks for a table, an experiment or a sweep in another way than it is written."""
    key, _, value = override.partition("=")
    if key in ADDED and {*value.split(",")} <= {*options(key)}:
        raise ConfigError(f"{override}: write +{override}; it is added to the choices, which have no {key} by default")
    meant = key.lstrip("-+") in ("m", "multirun") or override.startswith(("-m", "--m"))
    if meant and override not in MULTIRUN:
        raise ConfigError(f"{override}: write -m, by itself, for a sweep: python train.py seed=0,1 init=random,sept -m")


def check_selector(overrides: Sequence[str]) -> None:
    """Refuse an `init` that says who selects, as `init=random` does, beside a `selector` that says otherwise."""
    given = dict(text.lstrip("+").partition("=")[::2] for text in overrides)
    selectors = given.get("selector", "").split(",") if "selector" in given else []
    for column in given.get("init", "").split(","):
        others = [name for name in selectors if name != column]
        if column in options("selector") and others:
            raise ConfigError(
                f"init={column} and selector={others[0]} contradict each other: init={column} is init=pretrain "
                f"selector={column}; give one of the two alone"
            )


def check_hydra(overrides: Sequence[str]) -> None:
    """Refuse a folder for Hydra that cannot be created, or in which its files would mix with other data.

    No results are kept there. Raises ConfigError, and StorageError for a folder that cannot be created.
    """
    given = [text for text in renamed(overrides) if "=" in text and not text.startswith("-")]
    if not any(is_hydras(text) for text in given):
        return
    with one_line(), _composing():
        plain = [text for text, each in zip(given, parse(given), strict=True) if not each.is_sweep_override()]
        whole = compose(PRIMARY, [*plain, *with_own()], return_hydra_config=True)
        its = whole.hydra
        folders = {"hydra.run.dir": its.run.dir, "hydra.sweep.dir": its.sweep.dir}
        holders = {f"{group}.{name}": whole[group][name] for group, name in HELD}
        if its.job.chdir:
            raise ConfigError("hydra.job.chdir=true: relative paths would be resolved in another folder; leave it out")
    named = {text.lstrip("+").partition("=")[0] for text in given}
    for key in folders.keys() & named:
        _check_folder(key, folders[key], holders)


def is_hydras(override: str) -> bool:
    """Whether it sets one of Hydra's own settings, other than by choosing an option."""
    return override.lstrip("+~").startswith("hydra.")


def with_own() -> list[str]:
    """The override by which Hydra finds a person's own options too."""
    also = own()
    return [] if also is None else [f"hydra.searchpath=[{quoted(f'file://{also}')}]"]


@contextmanager
def _composing() -> Iterator[None]:
    """Context manager in which `hydra.compose` works, also inside a running Hydra job."""
    register()
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base=HYDRA):
            yield
    finally:
        GlobalHydra.instance().hydra = running


def _check_folder(key: str, folder: str, holders: dict[str, str | None]) -> None:
    if not str(folder).strip():
        raise ConfigError(f"{key} is empty: name a folder, or leave it out")
    path = Path(folder).expanduser().absolute()
    for holder, place in holders.items():
        held = Path(place).expanduser().absolute() if place else None
        if held is not None and (path == held or held in path.parents):
            raise ConfigError(f"{key}={folder} lies in {holder}={place}, whose files it would change; name another")
    try:
        path.mkdir(parents=True, exist_ok=True)  # as Hydra will
    except OSError as error:
        raise StorageError(f"{key}={folder} cannot be created: {error.strerror}") from None


# What Hydra and OmegaConf refuse, in our own words: the setting, what it must be, and how it is written.

SWEEP = "multirun.yaml"  # file that Hydra writes for a sweep that it launches
QUOTES = "a value with blanks or signs goes between quotes, inside those of the shell: \"KEY='VALUE'\""
SEVERAL = (
    "several values make a sweep: add -m on a command line, and call once for each from Python; a list is written "
    "KEY=[A,B], and a text with commas between quotes"
)
MUST = {  # by what OmegaConf says of a value
    "converted to Integer": "must be a whole number",
    "converted to Float": "must be a number",
    "not a valid bool": "must be true or false",
    "to string": "must be a text",
    "not a ListConfig": "must be a list, [A,B]",
    "not Optional": "must not be null",
    "Cannot assign": "holds settings, each by its name: write {key}.NAME=VALUE",
    "Cannot merge": "holds settings, each by its name: write {key}.NAME=VALUE",
    "not a subclass": "holds settings, each by its name: write {key}.NAME=VALUE",
    "support deletion": "cannot be left out",
}


INSIDE = {"retriever.backbone": "backbone", "retriever.train": "pretrain"}  # groups whose options stand elsewhere, too


@contextmanager
def one_line() -> Iterator[None]:
    """Context manager: errors of Hydra, OmegaConf and YAML become a one-line ConfigError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_refusal(error)) from None
    except YAMLError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    except OSError as error:
        if Path(str(error.filename)).name != SWEEP:
            raise
        raise StorageError(
            f"{error.filename}: {error.strerror}; Hydra keeps a sweep's settings there: start in another folder or set "
            "hydra.sweep.dir=FOLDER"
        ) from None


def _refusal(error: Exception) -> str:
    if isinstance(error, OverrideParseException) and error.override:
        return f"{error.override}: {QUOTES if '=' in error.override else 'is not KEY=VALUE'}"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip(" ^")]
    key = getattr(cause, "full_key", None)
    if key:
        return _of_setting(cause, written(str(key)), lines[0])
    told = " ".join(lines)
    if there := re.search(r"already at '(.+?)'|Multiple values for (\S+)\.", told):
        return f"{there[1] or there[2]} is there already: write it once, without +"
    if swept := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)' (?:1\.|requires)", told):
        return f"{swept[1]}: {SEVERAL}"
    return told


def _of_setting(error: Any, key: str, told: str) -> str:
    """told: what OmegaConf says."""
    if isinstance(error, (ConfigKeyError, ConfigAttributeError)):
        return _of_another_kind(error, key) if key in known_names() else unknown_name(key)
    if isinstance(error, InterpolationResolutionError):
        why = told.rpartition("interpolation: ")[2].strip('"')
        return f"{key}: what ${{..}} stands for is not there ({why})"
    if isinstance(error, MissingMandatoryValue):
        return f"{key} is not set: write {key}=VALUE"
    must = next((must for said, must in MUST.items() if said in told), None)
    if must is None:
        return f"{key}: {told}"
    if error.value is None:
        return f"{key}: {must.format(key=key)}"
    option = f", or an option by {INSIDE[key]}@{key}=OPTION" if key in INSIDE else ""
    return f"{key}={format_value(error.value)}: {must.format(key=key)}{option}"


def _of_another_kind(error: Any, key: str) -> str:
    """A setting that other options of the group have."""
    group = next(each for each in OF_SEVERAL_KINDS if key.startswith(f"{each}."))
    name = key.removeprefix(f"{group}.").partition(".")[0]
    others = [kind for kind, settings in SETTINGS.items() if name in {item.name for item in fields(settings)}]
    of_group = [kind for kind in others if issubclass(SETTINGS[kind], _base(error.object_type))]
    chosen = error.parent_node._get_node("name")
    return f"{key}: {group}={chosen} has no such setting; {', '.join(of_group)} {'have' if of_group[1:] else 'has'} it"


def _base(kind: type) -> type:
    """The class of all settings of the group."""
    return next(each for each in reversed(kind.__mro__) if each is not object)


def usage(name: str, purpose: str) -> str:
    """Of `train` or `search`: each group with its default, a one-line description and its options."""
    told = dict(ADDED)
    for item in fields(Experiment):
        if is_dataclass(item.type) and options(item.name):
            told[item.name] = str(item.type.__doc__).split(". ")[0].split(".\n")[0].rstrip(".") + "."
    started = sys.argv[0] if sys.argv[0] == f"sept {name}" else program(name)
    lines = []
    for key, default in ({f"+{name}": "NAME" for name in ADDED} | defaults()).items():
        group = key.lstrip("+")
        wrapped = textwrap.wrap(" ".join(options(group)), WIDTH, break_on_hyphens=False)
        lines += ["", f"{key}={default}: {told[group]}", *(f"    {line}" for line in wrapped)]
    return USAGE.format(program=started, purpose=purpose, groups="\n".join(lines[1:]))
