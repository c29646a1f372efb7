"""A `Step`, its key (a hash of all that it depends on), and its result: an `Artefact` with a manifest."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from sept.errors import ConfigError, DataError, StorageError

KEY_CHARS = 16  # 64 bits of the key name a folder; the manifest holds all 256
MANIFEST = "manifest.json"
CHECKPOINTS = "checkpoints"  # a build's subfolder for files that only resuming needs; not published
ASIDE = ".replaced"  # suffix of an artefact that is being replaced
FIELDS = frozenset({"stage", "version", "key", "spec", "inputs", "files", "facts", "commit", "versions"}) | frozenset(
    {"created", "wall_s", "used", "device", "gpus", "earlier", "attempts", "resumed", "checksum"}
)

_FOLDER = re.compile(rf"(?:(?P<slug>.+)-)?(?P<key>[0-9a-f]{{{KEY_CHARS}}})(?P<aside>{re.escape(ASIDE)})?")


@dataclass(frozen=True)
class Artefact:
    """The result of a step: a folder whose files are complete and never change."""

    key: str
    stage: str
    path: Path
    manifest: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """What the build returned."""
        facts: dict[str, Any] = self.manifest["facts"]
        return facts

    @property
    def created(self) -> float:
        """Completion time, in whole seconds since the epoch."""
        return datetime.fromisoformat(self.manifest["created"]).timestamp()


class FolderName(NamedTuple):
    """The parts of `<slug>-<key>`; aside: moved aside while it is being replaced."""

    slug: str
    key: str
    aside: bool


def parse_folder(name: str) -> FolderName | None:
    """None when `name` is not that of a published artefact."""
    match = _FOLDER.fullmatch(name)
    return match and FolderName(match["slug"] or "", match["key"], match["aside"] is not None)


def checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 over every other field, so that an altered fact or file hash is noticed without hashing files."""
    rest = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("ascii")).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`; DataError when it is missing, damaged or altered."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise _damaged(folder, f"it has no {MANIFEST}") from None
    except ValueError:
        raise _damaged(folder, f"its {MANIFEST} is not JSON") from None
    except OSError as error:
        raise StorageError(f"cannot read {folder / MANIFEST}: {error.strerror}") from error
    absent = FIELDS - set(manifest) if isinstance(manifest, dict) else FIELDS
    if absent:
        raise _damaged(folder, f"its {MANIFEST} lacks {', '.join(sorted(absent))}")
    if manifest["checksum"] != checksum(manifest):
        raise _damaged(folder, f"its {MANIFEST} was altered: its checksum does not fit")
    return manifest


def load_artefact(folder: Path) -> Artefact:
    """The artefact in `folder`; DataError as in `read_manifest`, or when the folder's name has another key."""
    manifest = read_manifest(folder)
    name = parse_folder(folder.name)
    if name is None or not manifest["key"].startswith(name.key):
        raise _damaged(folder, f"its {MANIFEST} is that of {manifest['key'][:KEY_CHARS]}")
    return Artefact(manifest["key"], manifest["stage"], folder, manifest)


def _damaged(folder: Path, what: str) -> DataError:
    return DataError(f"{folder} is damaged: {what}; see `python -m sept.store verify`, remove it with `... prune`")


MAX_SLUG_CHARS = 100  # file systems allow 255 bytes a name; the key and a suffix come on top


@dataclass(frozen=True, eq=False)
class Step:
    """An artefact that can be made: what identifies it, and how to build it.

    stage: its kind, and the folder that holds it. version: bump it when the stage's output changes.
    spec: nested plain data or dataclass instances; every field is part of the key, including defaults and ClassVars.
    inputs: the steps its result is computed from; their keys are part of the key. aids: further steps whose artefacts
    it may read, without effect on the files that other steps read: to check an input, as a faster form of an input, or
    as the subject of a report. They may make a build fail but never change its result, and are not part of the key.
    build(folder, inputs) writes the payload into `folder` and returns plain facts (images, flops, accuracies); after an
    interruption it is called again on the same folder, with the files it left there. by_part: name patterns of large
    files whose readers verify each part that they read; all other files are hashed before they are read
    (`sept.store.store`). Not part of the key: slug (readable part of the folder's name), estimate (shown by the plan:
    images, flops), about (its description of the data) and gpus (how many the build holds).
    """

    stage: str
    version: int
    spec: object
    inputs: Mapping[str, "Step"]
    build: Callable[[Path, Mapping[str, Artefact]], Mapping[str, Any]]
    slug: str = ""
    estimate: Mapping[str, float] = field(default_factory=dict)
    aids: Mapping[str, "Step"] = field(default_factory=dict)
    by_part: tuple[str, ...] = ()
    about: str = ""
    gpus: int = 0

    def __post_init__(self) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", self.stage), f"stage {self.stage!r} is no folder name"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """{stage, version, spec, inputs: {name: key}} as plain data, with the spec as of the first access.

        Raises TypeError or ConfigError naming the field that cannot be part of a key.
        """
        keys = {name: step.key for name, step in self.inputs.items()}
        spec = plain(self.spec, f"{self.stage}.spec")
        return {"stage": self.stage, "version": self.version, "spec": spec, "inputs": keys}

    @cached_property
    def key(self) -> str:
        """64 hexadecimal digits; folders and messages show the first KEY_CHARS."""
        return digest(self.identity)

    @property
    def needs(self) -> dict[str, "Step"]:
        """The steps that must be made before it is built."""
        return {**self.inputs, **self.aids}

    @property
    def folder_name(self) -> str:
        """`<slug>-<start of the key>`, the slug reduced to characters that are safe in a path and a shell."""
        slug = re.sub(r"[^A-Za-z0-9._=+]+", "-", self.slug)[:MAX_SLUG_CHARS].strip("-.")
        return f"{slug}-{self.key[:KEY_CHARS]}" if slug else self.key[:KEY_CHARS]

    def walk(self) -> list["Step"]:
        """This step and all it needs, each key once, inputs before the steps that read them."""
        seen: dict[str, Step] = {}

        def visit(step: Step) -> None:
            if step.key not in seen:
                for upstream in step.needs.values():
                    visit(upstream)
                seen[step.key] = step

        visit(self)
        return list(seen.values())

    def __str__(self) -> str:
        return f"{self.stage} {self.key[:KEY_CHARS]}" + (f" ({self.slug})" if self.slug else "")


def digest(value: Any) -> str:
    """SHA-256 of plain data: independent of the order of mappings, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def plain(value: Any, where: str) -> Any:
    """`value` as JSON data, equal for equivalent values: 1.0 is 1, a tuple is a list.

    Paths and enum members become strings, dataclass instances become dicts. Raises TypeError, naming
    `where`, for anything else, and ConfigError for numbers that are not finite.
    """
    if isinstance(value, Enum):
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return _number(value, where)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    return {name: plain(item, f"{where}.{name}") for name, item in _fields(value, where).items()}


def _number(value: int | float, where: str) -> int | float:
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        raise ConfigError(f"{where} is {value}: only finite numbers can be recorded")
    return int(value) if value.is_integer() else float(value)


def _fields(value: Any, where: str) -> dict[str, Any]:
    """Named parts of a mapping or of a dataclass instance, whose ClassVars count like fields."""
    if is_dataclass(value) and not isinstance(value, type):
        # An InitVar, or a ClassVar without a value, is declared but absent from the instance.
        return {name: getattr(value, name) for name in value.__dataclass_fields__ if hasattr(value, name)}
    if not isinstance(value, Mapping):
        raise TypeError(f"{where} is a {type(value).__qualname__}: only plain data can be recorded")
    for name in value:
        if isinstance(name, Enum) or not isinstance(name, str):
            raise TypeError(f"{where} has the key {name!r}: only strings can name what is recorded")
    return dict(value)
