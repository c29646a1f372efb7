"""Store maintenance: `verify` compares files with manifests, `repair` drops damaged files and what was built on them,
`prune` removes what is named."""

import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sept.errors import ConfigError, DataError
from sept.store import disk
from sept.store.disk import discard, fingerprint, listing, payload, storage_errors, sweep, try_lock
from sept.store.step import KEY_CHARS, MANIFEST, Artefact, digest, load_artefact, parse_folder
from sept.store.store import UNFINISHED, Store

PUBLISHING_S = 2.0  # at most, from the last write of a file to the manifest, whose time is in whole seconds


def verify(store: Store) -> list[str]:
    """One line per problem: damaged manifests, files missing, altered or extra. Reads every byte."""
    return [problem for folder in store.artefact_folders() for problem in _problems(folder)]


def _problems(folder: Path) -> list[str]:
    try:
        manifest = load_artefact(folder).manifest
        found = payload(folder, but=frozenset({MANIFEST}))
    except DataError as error:  # names the folder
        return [str(error)]
    return [
        f"{folder}: {what}"
        for what in (*_identity_problems(folder, manifest), *_file_problems(folder, manifest, found))
    ]


def _identity_problems(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    keys = {name: upstream["key"] for name, upstream in manifest["inputs"].items()}
    identity = {name: manifest[name] for name in ("stage", "version", "spec")} | {"inputs": keys}
    if digest(identity) != manifest["key"]:
        yield "its key is not that of its spec and inputs"
    if manifest["stage"] != folder.parent.name:
        yield f"it is an artefact of stage {manifest['stage']}"


def _file_problems(folder: Path, manifest: dict[str, Any], found: list[str]) -> Iterator[str]:
    files = manifest["files"]
    yield from (f"{name} is missing" for name in sorted(files.keys() - set(found)))
    for name in found:
        if name not in files:
            yield f"{name} is extra"
            continue
        try:
            if fingerprint(folder / name) != files[name]:
                yield f"{name} was altered"
        except OSError as error:
            yield f"{name} cannot be read: {error.strerror}"


def repair(store: Store) -> dict[Path, str]:
    """Turns damaged artefacts into unfinished work without the damaged files, and removes what may have been built on
    the damage; {folder: what became of it}.

    The original command makes an artefact again: a resumable stage (embedding, for instance) computes only what is
    missing. Reads every byte. A folder whose key is locked by a running process is left alone.
    """
    damaged = {folder: _readable_since(folder) for folder in store.artefact_folders() if _problems(folder)}
    built_on_it = _built_on(store, damaged)
    # First what was built on the damage: if stopped in between, the next call still finds the damage.
    removed = {folder: _remove(store, folder, key) + ": built on damage" for folder, key in built_on_it.items()}
    fate = {folder: _reopen(store, folder) for folder in damaged} | removed
    sweep(store.root)
    return fate


def _readable_since(folder: Path) -> float:
    """Time, in seconds since the epoch, from which on a build may have read damage in this folder.

    A file written after publication was damaged then; one whose bits rotted, at any time, and likewise one in a copy of
    the store without original times. Missing files, and folders without a readable manifest, were not read by any
    build.
    """
    try:
        artefact = load_artefact(folder)
        times = [_damaged_at(folder / name, known) for name, known in artefact.manifest["files"].items()]
        kept_times = (folder / MANIFEST).stat().st_mtime <= artefact.created + PUBLISHING_S
    except (DataError, OSError):
        return math.inf
    first = min(times, default=math.inf)
    return first if kept_times and first > artefact.created + PUBLISHING_S else 0.0


def _damaged_at(path: Path, known: dict[str, Any]) -> float:
    """When a damaged file was last written; infinity for an intact one."""
    if not path.is_file() or fingerprint(path) == known:
        return math.inf
    return path.stat().st_mtime


def _built_on(store: Store, damaged: Mapping[Path, float]) -> dict[Path, str]:
    """{folder: abbreviated key} of the artefacts built on damage, directly or indirectly."""
    whole: dict[Path, Artefact] = {}
    for folder in set(store.artefact_folders()) - set(damaged):
        with suppress(DataError):
            whole[folder] = load_artefact(folder)
    since = {name.key: first for folder, first in damaged.items() if (name := parse_folder(folder.name))}
    found: dict[Path, str] = {}
    grown = True
    while grown:
        readers = {
            folder: artefact.key[:KEY_CHARS]
            for folder, artefact in whole.items()
            if folder not in found
            and any(since.get(key, math.inf) < artefact.created + 1 for key in _read_by(artefact))
        }
        found |= readers
        since |= dict.fromkeys(readers.values(), 0.0)
        grown = bool(readers)
    return dict(sorted(found.items()))


def _read_by(artefact: Artefact) -> list[str]:
    """Abbreviated keys of what an artefact was built from."""
    return [upstream["key"][:KEY_CHARS] for upstream in artefact.manifest["inputs"].values()]


def _reopen(store: Store, folder: Path) -> str:
    name = parse_folder(folder.name)
    assert name is not None
    lock = try_lock(store.root, name.key)
    if lock is None:
        return "kept: in use"
    try:
        with storage_errors(folder):
            return _to_unfinished(store, folder, name.key)
    except DataError:
        discard(store.root, folder)
        return "removed: its manifest is damaged"
    finally:
        lock.release()


def _to_unfinished(store: Store, folder: Path, key: str) -> str:
    known = load_artefact(folder).manifest["files"]
    found = payload(folder, but=frozenset({MANIFEST}))
    damaged = [name for name in found if fingerprint(folder / name) != known.get(name)]
    work = store.root / UNFINISHED / f"{folder.parent.name}-{key}"
    if work.exists():
        discard(store.root, work)
    (folder / MANIFEST).unlink()  # first: without it nothing is published
    for name in damaged:
        (folder / name).unlink()
    work.parent.mkdir(exist_ok=True)
    os.rename(folder, work)
    whole = len(found) - len(damaged)
    return f"unfinished: {whole} of {len(known)} files are intact"


def prune(
    store: Store,
    stages: Collection[str] = (),
    keys: Collection[str] = (),
    unfinished: bool = False,
    dry_run: bool = False,
) -> dict[Path, str]:
    """Removes the published artefacts of the named stages and keys; {folder: what became of it}.

    unfinished: removes unfinished work instead, all of it when nothing is named. keys may be abbreviated as in folder
    names. A folder whose key is locked by a running process is left alone. Raises ConfigError, before anything is
    removed, for a stage or key that does not exist.
    """
    if not (stages or keys or unfinished):
        raise ConfigError("prune: name what to remove, with --stage, --key or --unfinished")
    chosen = _chosen(_unfinished(store) if unfinished else _published(store), set(stages), set(keys))
    if dry_run:
        return dict.fromkeys(chosen, "would be removed")
    fate = {folder: _remove(store, folder, key) for folder, (_, key) in chosen.items()}
    sweep(store.root)
    return fate


Names = dict[Path, tuple[str, str]]  # folder: its stage and abbreviated key


def _published(store: Store) -> Names:
    named = ((folder, parse_folder(folder.name)) for folder in store.artefact_folders())
    return {folder: (folder.parent.name, parts.key) for folder, parts in named if parts}


def _unfinished(store: Store) -> Names:
    parent = store.root / UNFINISHED
    return {parent / name: disk.parse_work(name) for name in listing(parent)}


def _chosen(names: Names, stages: set[str], keys: set[str]) -> Names:
    shown = {key[:KEY_CHARS] for key in keys}
    strangers = sorted((stages - {stage for stage, _ in names.values()}) | (shown - {key for _, key in names.values()}))
    if strangers:
        raise ConfigError(f"prune: nothing to remove matches {', '.join(strangers)}; nothing was removed")
    if not stages and not shown:
        return names
    return {folder: name for folder, name in names.items() if name[0] in stages or name[1] in shown}


def _remove(store: Store, folder: Path, key: str) -> str:
    lock = try_lock(store.root, key)
    if lock is None:
        return "kept: in use"
    try:
        if not folder.exists():
            return "already gone"
        if disk.is_owned(folder):
            return "kept: in use"
        with storage_errors(folder):
            discard(store.root, folder)
    finally:
        lock.release()
    return "removed"
