"""The config of a command line, as `hydra.compose` gives it, in a fraction of its time.

Hydra decides which files a config consists of, in which order, and where each goes; it also applies overrides. But it
rereads each file for every config, and merges them one by one with OmegaConf's checks. Here a file is read once per
process, files are merged as plain mappings, and checked once, against the schema. `tests/test_composition.py` compares
the two for every table and option.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal import defaults_list as composing
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides, create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import InputDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sept.compose.names import ARGUMENTS, CONF, OF_SEVERAL_KINDS, own
from sept.config import SETTINGS, Experiment
from sept.retrievers.settings import Retriever

HYDRA = "1.3"  # version whose composition rules are implemented
PRIMARY = "config"  # conf/config.yaml
SCHEMA = "schema"
KINDS = "settings/"  # prefix of the names of SETTINGS in a defaults list
LAUNCHER = "hydra/launcher/"
Kinds = tuple[type, ...]  # in the order of OF_SEVERAL_KINDS


@cache
def register() -> None:
    """Registers the schema with Hydra, which types every group file with it; options of several kinds name their
    own."""
    store = ConfigStore.instance()
    store.store(name=SCHEMA, node=opened(OmegaConf.structured(Experiment)))
    for name, kind in SETTINGS.items():
        store.store(group="settings", name=name, node=kind)


def opened(schema: DictConfig) -> DictConfig:
    """The schema, with networks that take any argument without the `+` that Hydra requires for new names."""
    for key in ARGUMENTS:
        OmegaConf.set_struct(OmegaConf.select(schema, key), False)
    return schema


@cache
def schema(kinds: Kinds) -> DictConfig:
    """The schema of an experiment with these kinds of settings; merging into it copies it."""
    finetune, pretrain, selector, train = (kind() for kind in kinds)
    return opened(
        OmegaConf.structured(
            Experiment(finetune=finetune, pretrain=pretrain, selector=selector, retriever=Retriever(train=train))
        )
    )


@dataclass
class Composed:
    """config: typed, without Hydra's own part. hydra: that part, from the files. launcher: the option chosen."""

    config: DictConfig
    hydra: Mapping[str, Any]
    launcher: str


def composed(overrides: Sequence[str]) -> Composed:
    """The same as `hydra.compose("config", overrides)`. Raises what that raises."""
    parsed = parse(overrides)
    ConfigLoaderImpl.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=True)
    settings = [each for each in parsed if isinstance(each.value(), dict) or not is_group(each)]
    files = _composed_of(tuple(str(each.input_line) for each in parsed if each not in settings), own())
    typed = schema(files.kinds)
    config = _merged_into(typed, files.values)
    OmegaConf.set_struct(config, True)
    settings = [each for each in settings if not each.is_hydra_override()]
    ConfigLoaderImpl._apply_overrides_to_config(settings, config)
    if any(each.is_add() or each.is_force_add() for each in settings):
        # Merging into the schema again refuses what `+field=` added past Hydra's checks.
        config = _merged_into(typed, OmegaConf.to_container(config))
    return Composed(config, files.hydra, files.launcher)


@dataclass(frozen=True)
class _Merged:
    """The merged content of the files of some choices."""

    values: Mapping[str, Any]
    hydra: Mapping[str, Any]
    kinds: Kinds
    launcher: str


@cache  # the cells of a sweep often differ only in settings
def _composed_of(choices: tuple[str, ...], also: Path | None) -> _Merged:
    chosen = _chosen(PRIMARY, parse(choices))
    values, kinds = _merged(chosen)
    paths = [str(each.config_path) for each in chosen.defaults]
    launcher = next(path for path in paths if path.startswith(LAUNCHER)).removeprefix(LAUNCHER)
    return _Merged(values, values.pop("hydra", {}), tuple(kinds[key] for key in OF_SEVERAL_KINDS), launcher)


def _merged_into(typed: DictConfig, values: Any) -> DictConfig:
    config = OmegaConf.merge(typed, values)
    assert isinstance(config, DictConfig)
    return config


def option(group: str, name: str) -> dict[str, Any]:
    """The values of a group's option, from the files it consists of; interpolations are not resolved."""
    said = _merged(_chosen(f"{group}/{name}", [], _alone()))[0][group]
    assert isinstance(said, dict)
    return said


def parse(overrides: Sequence[str]) -> list[Override]:
    """Raises HydraException for a syntax error."""
    return OverridesParser.create().parse_overrides([*overrides])


def is_group(override: Override) -> bool:
    """Whether it chooses an option of a group."""
    return _files().group_exists(override.key_or_group)


class _Files(ConfigRepository):
    """Hydra's files, each read once, ours before a person's own. The schema, which Hydra reads beside them, is empty
    here: the merged files are checked against it at the end."""

    def __init__(self, also: Path | None) -> None:
        places = create_config_search_path(str(CONF))
        if also is not None:
            places.append("own", f"file://{also}")
        super().__init__(places)
        self._read: dict[str, ConfigResult | None] = {}
        self._plain: dict[str, Any] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path == SCHEMA or config_path.startswith(KINDS):
            return ConfigResult(SCHEMA, config_path, OmegaConf.create({}), {"package": None})
        if config_path not in self._read:
            self._read[config_path] = super().load_config(config_path)
        return self._read[config_path]

    def plain(self, config_path: str) -> Any:
        """A copy of the file's values, without its defaults list."""
        if config_path not in self._plain:
            read = self.load_config(config_path)
            assert read is not None
            self._plain[config_path] = OmegaConf.to_container(read.config)
        return _copied(self._plain[config_path])


class _Alone(_Files):
    """Options by themselves: without what they choose in other groups."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        read = _files().load_config(config_path)
        if read is None or read.defaults_list is None:
            return read
        return replace(read, defaults_list=[each for each in read.defaults_list if not each.is_override()])


def _files() -> _Files:
    return _opened(_Files, own())


def _alone() -> _Files:
    return _opened(_Alone, own())


@cache
def _opened(kind: type[_Files], also: Path | None) -> _Files:
    return kind(also)


def _chosen(config: str, overrides: list[Override], files: _Files | None = None) -> DefaultsList:
    """files: those of an option by itself, without Hydra's own settings."""
    version.setbase(HYDRA)
    whole = files is None
    with _choices_are_not_wrapped():
        return create_defaults_list(files or _files(), config, overrides, prepend_hydra=whole, skip_missing=False)


@contextmanager
def _choices_are_not_wrapped() -> Iterator[None]:
    """Spares Hydra most of its time: it wraps all choices so far anew for every file, for interpolations in the file's
    defaults list. A file without any is given no choices."""
    usual = composing._create_interpolation_map

    def for_interpolations(overrides: Overrides, defaults_list: list[InputDefault], self_added: bool) -> DictConfig:
        needed = any(entry.is_interpolation() for entry in defaults_list)
        return usual(overrides, defaults_list, self_added) if needed else DictConfig({})

    composing._create_interpolation_map = for_interpolations
    try:
        yield
    finally:
        composing._create_interpolation_map = usual


def _merged(chosen: DefaultsList) -> tuple[dict[str, Any], dict[str, type]]:
    """The files' values, each in its package, later ones over earlier ones; the kind of settings of each package."""
    values: dict[str, Any] = {}
    kinds: dict[str, type] = {}
    for each in chosen.defaults:
        path, package = str(each.config_path), each.package or ""
        if path.startswith(KINDS):
            kinds[package] = SETTINGS[path.removeprefix(KINDS)]
        elif path == SCHEMA or path.startswith("hydra/"):
            continue
        else:
            said = _files().plain(path)
            if not isinstance(said, dict):
                raise ConfigCompositionException(f"conf/{path}.yaml holds no settings")
            for part in reversed(package.split(".") if package else []):
                said = {part: said}
            _merge(values, said)
    return values, kinds


def _merge(values: dict[str, Any], later: Mapping[str, Any]) -> None:
    for key, value in later.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _copied(value: Any) -> Any:
    """Copies the mappings; lists and values are shared, as merging changes none of them."""
    return {key: _copied(inner) for key, inner in value.items()} if isinstance(value, dict) else value
