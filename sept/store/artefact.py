"""A published artefact: its folder, the folder's name and its manifest."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sept.errors import DataError, StorageError

KEY_CHARS = 16  # 64 bits of the key name a folder; the manifest holds all 256
MANIFEST = "manifest.json"
ASIDE = ".replaced"  # suffix of an artefact that is being replaced
FIELDS = frozenset({"stage", "version", "key", "spec", "inputs", "files", "facts", "commit", "versions"}) | frozenset(
    {"created", "wall_s", "attempts", "resumed", "checksum"}
)

_FOLDER = re.compile(rf"(?:(?P<slug>.+)-)?(?P<key>[0-9a-f]{{{KEY_CHARS}}})(?P<aside>{re.escape(ASIDE)})?")


@dataclass(frozen=True)
class Artefact:
    """What a step gave: a folder whose files are complete and never change."""

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
        """When it was complete, in whole seconds since the epoch."""
        return datetime.fromisoformat(self.manifest["created"]).timestamp()


class FolderName(NamedTuple):
    """The parts of `<slug>-<key>`; aside: it is making room for its replacement."""

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
    """The artefact in `folder`; DataError as `read_manifest`, or when the folder's name tells another key."""
    manifest = read_manifest(folder)
    name = parse_folder(folder.name)
    if name is None or not manifest["key"].startswith(name.key):
        raise _damaged(folder, f"its {MANIFEST} is that of {manifest['key'][:KEY_CHARS]}")
    return Artefact(manifest["key"], manifest["stage"], folder, manifest)


def _damaged(folder: Path, what: str) -> DataError:
    return DataError(f"{folder} is damaged: {what}; see `python -m sept.store verify`, remove it with `... prune`")
