"""Command-line overrides: completed, and refused in one line if they contain an unknown name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from sept.compose.composition import HYDRA, PRIMARY, parse, register
from sept.compose.names import CONF, is_known, nearest, one_line, options, renamed, unknown_name
from sept.compose.usage import ADDED
from sept.errors import ConfigError, StorageError

COMPLETION = {"-sc", "--shell-completion"}  # what follows is for Hydra
NETWORKS = {"backbone.name": ("backbone", ""), "retriever.backbone.name": ("retriever", "backbone@retriever.backbone")}
ANY = "timm"  # the option that takes any network, with no arguments set
HELD = (("store", "root"), ("pool", "path"), ("task", "path"), ("query", "path"))  # not for Hydra's files


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
        key, equals, value = override.partition("=")
        if key in ADDED:
            raise ConfigError(f"{override}: write +{override}")
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


def check_hydra(overrides: Sequence[str]) -> None:
    """Refuse a folder for Hydra that cannot be created, or in which its files would mix with other data.

    No results are kept there. Raises ConfigError, and StorageError for a folder that cannot be created.
    """
    given = [text for text in renamed(overrides) if "=" in text and not text.startswith("-")]
    if not any(is_hydras(text) for text in given):
        return
    with one_line(), _composing():
        plain = [text for text, each in zip(given, parse(given), strict=True) if not each.is_sweep_override()]
        whole = compose(PRIMARY, plain, return_hydra_config=True)
        own = whole.hydra
        folders = {"hydra.run.dir": own.run.dir, "hydra.sweep.dir": own.sweep.dir}
        holders = {f"{group}.{name}": whole[group][name] for group, name in HELD}
        if own.job.chdir:
            raise ConfigError("hydra.job.chdir=true: relative paths would be resolved in another folder; leave it out")
    named = {text.lstrip("+").partition("=")[0] for text in given}
    for key in folders.keys() & named:
        _check_folder(key, folders[key], holders)


def is_hydras(override: str) -> bool:
    """Whether it sets one of Hydra's own settings, other than by choosing an option."""
    return override.lstrip("+~").startswith("hydra.")


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
