"""From a command line to checked experiments: the one place, beside `train.py` and `search.py`, that knows Hydra.

`load` turns a composed config into an `Experiment`; nothing after it sees a DictConfig.
"""

import difflib
import itertools
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from sept import paths
from sept.config import SETTINGS, Experiment
from sept.errors import ConfigError, StorageError
from sept.retrievers.settings import Retriever

CONF = Path(__file__).resolve().parent.parent / "conf"
OF_SEVERAL_KINDS = ("finetune", "pretrain", "selector", "retriever.train")
TRAINED = ("pretrain", r"retriever\.train")  # recipes of self-supervised trainings
OPEN = (".backbone.args.", ".pool.sources.")  # settings whose names are not known here
WIDTH = 110  # characters, of the options in a help text
SWEEP = "multirun.yaml"  # what Hydra writes of a sweep
BASIC = ".BasicLauncher"  # Hydra's own: one cell after the other, in this process
ADDED = {  # groups without a default: `+table=NAME`
    "experiment": "A named choice of the groups below.",
    "table": "A named sweep: the paper's tables and figures, and what they are in the embedded world.",
}
HELD = (("store", "root"), ("pool", "path"), ("task", "path"), ("query", "path"))  # folders that are others'
COMPLETION = {"-sc", "--shell-completion"}  # what follows is for Hydra
USAGE = """\
usage: python {program} [GROUP=OPTION ..] [KEY=VALUE ..]

{purpose}

{groups}

KEY=VALUE: any setting; --cfg job prints them with their values. Several values and -m make a sweep: seed=0,1,2 -m
Completion of groups and options in bash (zsh, fish): eval "$(python {program} -sc install=bash)"
Hydra's own flags: --hydra-help"""


def renamed(overrides: Sequence[str]) -> list[str]:
    """`pretrain.from=..` as the field it sets, `start`: no field can be called by a keyword of Python."""
    return [re.sub(rf"^([+~]*(?:{'|'.join(TRAINED)}))\.from(?==|$)", r"\1.start", text) for text in overrides]


def option(name: str) -> str:
    """The other way round: the name of a setting on a command line."""
    return re.sub(rf"^({'|'.join(TRAINED)})\.start$", r"\1.from", name)


def load(cfg: Any, expanded: bool = True) -> Experiment:
    """The checked `Experiment` of a composed config; `expanded` says that a sweep launched it.

    Raises ConfigError in one line for an unknown field, a wrong type or value, a table that did not
    expand, and choices that contradict each other.
    """
    from omegaconf import OmegaConf

    table = OmegaConf.select(cfg, "table")
    if table is not None and not expanded:
        raise ConfigError(f"table={table} did not expand into cells: write `+table={table}`, one table a command")
    with one_line():
        # Merging again into a fresh schema refuses what `+field=` smuggled past Hydra.
        kinds: list[Any] = [OmegaConf.get_type(OmegaConf.select(cfg, key)) for key in OF_SEVERAL_KINDS]
        assert all(kind in SETTINGS.values() for kind in kinds), "every option of these groups names its settings"
        finetune, pretrain, selector, train = (kind() for kind in kinds)
        retriever = Retriever(train=train)
        schema = OmegaConf.structured(
            Experiment(finetune=finetune, pretrain=pretrain, selector=selector, retriever=retriever)
        )
        # Resolved once, at the end: a path may hold what would be an interpolation if it were read again.
        experiment = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.to_container(cfg)))
    assert isinstance(experiment, Experiment)
    _settle_paths(experiment)
    experiment.check()
    if not expanded:
        experiment.check_unused()
    return experiment


def _settle_paths(e: Experiment) -> None:
    """Blank ones are refused, and `~` expanded: Hydra's grammar takes it only in quotes, where no shell sees it."""
    paths.check_environment()
    holders: list[tuple[str, Any, str]] = [("pool", e.pool, "path"), ("task", e.task, "path")]
    holders += [("task", e.task, "class_list"), ("query", e.query, "path"), ("store", e.store, "root")]
    holders += [("init", e.init, "weights"), ("retriever", e.retriever, "weights"), ("index", e.index, "uri")]
    holders += [("pretrain", e.pretrain, "start"), ("retriever.train", e.retriever.train, "start")]
    holders += [(f"pool.sources.{name}", source, "path") for name, source in e.pool.sources.items()]
    for group, holder, name in holders:
        value = getattr(holder, name)
        if value is not None:
            setattr(holder, name, paths.settled(f"{group}.{name}", value))


def register() -> None:
    """Make the schema known to Hydra, which types every group file with it; options of several kinds name their own."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="schema", node=Experiment)
    for name, kind in SETTINGS.items():
        store.store(group="settings", name=name, node=kind)


def expand(name: str, overrides: Sequence[str] = ()) -> list[Experiment]:
    """Every cell of table `name`, narrowed or widened by command-line overrides; as the sweep launches them."""
    from hydra import compose
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if name not in _options("table"):
        raise ConfigError(f"there is no table {name}; " + _nearest(name, _options("table")))
    register()
    with one_line(), _composing():
        whole = compose("config", [f"+table={name}"], return_hydra_config=True)
        given = {override.split("=", 1)[0]: override for override in renamed(overrides)}
        named = {key: f"{key}={value}" for key, value in whole.hydra.sweeper.params.items()}
        choices = []
        for parsed in OverridesParser.create().parse_overrides([*(named | given).values()]):
            key = parsed.get_key_element()
            values = (
                parsed.sweep_string_iterator() if parsed.is_sweep_override() else [parsed.get_value_element_as_str()]
            )
            choices.append([f"{key}={value}" for value in values])
        return [
            load(compose("config", [f"+table={name}", *cell]), expanded=True) for cell in itertools.product(*choices)
        ]


def experiment(overrides: Sequence[str]) -> Experiment:
    """What `python train.py` with these overrides runs."""
    from hydra import compose

    register()
    with one_line(), _composing():
        return load(compose("config", renamed(overrides)), expanded=False)


@contextmanager
def _composing() -> Iterator[None]:
    """Inside, `hydra.compose` works, in a running job of Hydra's too."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running


def in_one_process(table: str, overrides: Sequence[str]) -> bool:
    """Whether the cells of a table run one after the other in the process that starts them."""
    from hydra import compose

    register()
    chosen = [override for override in overrides if override.startswith("hydra/launcher=")]
    with one_line(), _composing():
        whole = compose("config", [f"+table={table}", *chosen], return_hydra_config=True)
    return bool(whole.hydra.launcher._target_.endswith(BASIC))


@contextmanager
def one_line() -> Iterator[None]:
    """What Hydra and OmegaConf refuse inside becomes a ConfigError of one line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_refusal(error)) from None
    except OSError as error:
        if Path(str(error.filename)).name != SWEEP:
            raise
        raise StorageError(
            f"{error.filename}: {error.strerror}; Hydra keeps a sweep's settings there: start in another folder or set "
            "hydra.sweep.dir=FOLDER"
        ) from None


def _refusal(error: Exception) -> str:
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip(" ^")]
    key = getattr(cause, "full_key", None)
    if not key:
        return " ".join(lines)
    return unknown_name(str(key)) if isinstance(cause, ConfigKeyError) else f"{key}: {lines[0]}"


def check_overrides(overrides: list[str]) -> None:
    """Refuse a command line that names an unknown key or option, naming the nearest valid one."""
    if COMPLETION & {*overrides}:
        return
    tables = ",".join(override.partition("=")[2] for override in overrides if override.startswith("+table="))
    if "," in tables:
        raise ConfigError(f"+table={tables}: one table a command")
    for override in overrides:
        key, equals, value = override.partition("=")
        if key in ADDED:
            raise ConfigError(f"{override}: write +{override}")
        key = key.lstrip("+~").partition("@")[0]
        if not equals or key.startswith("hydra") or key.startswith("-"):
            continue
        options = _options(key)
        if options:
            for choice in value.split(","):
                if choice not in options:
                    raise ConfigError(f"{key}={choice}: no such option; " + _nearest(choice, options))
        elif key not in known_names() and not any(part in f".{key}." for part in OPEN):
            raise ConfigError(unknown_name(key))


def check_hydra(overrides: Sequence[str]) -> None:
    """Refuse a folder for Hydra that cannot be made, or where it would leave files among others' files.

    Nothing of a result is kept there. Raises ConfigError, and StorageError for a folder that cannot be made.
    """
    from hydra import compose

    given = [text for text in overrides if "=" in text and not text.startswith("-")]
    if not any(text.lstrip("+~").startswith("hydra.") for text in given):
        return
    with one_line(), _composing():
        whole = compose("config", _plain(given), return_hydra_config=True)
        own = whole.hydra
        folders = {"hydra.run.dir": own.run.dir, "hydra.sweep.dir": own.sweep.dir}
        holders = {f"{group}.{name}": whole[group][name] for group, name in HELD}
        if own.job.chdir:
            raise ConfigError("hydra.job.chdir=true: paths would be looked for in another folder; leave it out")
    named = {text.lstrip("+").partition("=")[0] for text in given}
    for key in folders.keys() & named:
        _check_folder(key, folders[key], holders)


def _plain(overrides: Sequence[str]) -> list[str]:
    """Without those that sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([*overrides])
    return [text for text, each in zip(overrides, parsed, strict=True) if not each.is_sweep_override()]


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
        raise StorageError(f"{key}={folder} cannot be made: {error.strerror}") from None


def usage(program: str, purpose: str) -> str:
    """What `--help` prints: each group with its default, a line that says what it is, and its options."""
    told = dict(ADDED)
    for item in fields(Experiment):
        if is_dataclass(item.type) and _options(item.name):
            told[item.name] = str(item.type.__doc__).split(". ")[0].split(".\n")[0].rstrip(".") + "."
    lines = []
    for key, default in ({f"+{name}": "NAME" for name in ADDED} | defaults()).items():
        group = key.lstrip("+")
        options = textwrap.wrap(" ".join(_options(group)), WIDTH, break_on_hyphens=False)
        lines += ["", f"{key}={default}: {told[group]}", *(f"    {line}" for line in options)]
    return USAGE.format(program=program, purpose=purpose, groups="\n".join(lines[1:]))


def defaults() -> dict[str, str]:
    """The option of each group that `python train.py` chooses."""
    from omegaconf import OmegaConf

    chosen: dict[str, str] = {}
    for each in OmegaConf.load(CONF / "config.yaml").defaults:
        if not isinstance(each, str):
            chosen |= {group: option for group, option in each.items() if " " not in group}  # Hydra's own
    return chosen


def known_names() -> list[str]:
    """Every key that a command line may set: `seed`, `pool`, `pool.path`, ..."""
    kinds = [name for key in OF_SEVERAL_KINDS for kind in SETTINGS.values() for name in _names(kind, f"{key}.")]
    return ["experiment", *dict.fromkeys(_names(Experiment, "") + kinds)]


def unknown_name(key: str) -> str:
    """One line that refuses `key` and names the nearest valid keys."""
    return f"{key}: no such setting; " + _nearest(key, known_names())


def _names(cls: type, prefix: str) -> list[str]:
    names = []
    for item in fields(cls):
        names.append(prefix + item.name)
        if is_dataclass(item.type):
            names += _names(item.type, f"{prefix}{item.name}.")  # type: ignore[arg-type]
    return names


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml")) if group.isidentifier() else []


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return "did you mean " + " or ".join(close) + "?" if close else "known are " + ", ".join(names[:20])
