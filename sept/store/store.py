"""`Store`: returns the artefact of a step, building at most once what is missing.

On disk: ROOT/<stage>/<slug>-<key>/ is published and complete; ROOT/.unfinished/<stage>-<key>/ waits to be resumed, or
is being built by the process named after an @; ROOT/.locks and ROOT/.removed are internal. `check` verifies that an
artefact's files are what was published: before a stage reads them, once per process.
"""

import errno
import json
import logging
import os
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from sept.errors import ConfigError, DataError, StorageError
from sept.runtime import signals
from sept.store import disk
from sept.store.build import complete, read_work
from sept.store.disk import POLL_S, discard, fingerprint, listing, locked, storage_errors, sweep, sync, write_json
from sept.store.step import ASIDE, KEY_CHARS, Artefact, Step, load_artefact, parse_folder

AGAIN = "`python -m sept.store repair` drops it and what was built on it; then run the same command again"

_whole: set[tuple[str, int, int, int]] = set()  # files found intact: path, inode, bytes, mtime in ns


def check(artefact: Artefact, by_part: Collection[str] = ()) -> Artefact:
    """Returns the artefact. Raises DataError naming the first file that differs from the manifest (size, sha256).

    by_part: name patterns of large files whose readers verify each part that they read; here only their size is
    checked. A file that was found intact and has not been written since is not read again.
    """
    for name, known in artefact.manifest["files"].items():
        signals.look()
        _check(artefact.path / name, known, any(fnmatch(name, pattern) for pattern in by_part))
    return artefact


def _check(path: Path, known: dict[str, Any], by_part: bool) -> None:
    try:
        found = path.stat()
        if found.st_size != known["size"]:
            raise DataError(
                f"{path} has {found.st_size:,} bytes, not the {known['size']:,} that were published; {AGAIN}"
            )
        seen = (str(path), found.st_ino, found.st_size, found.st_mtime_ns)
        if by_part or seen in _whole:
            return
        if fingerprint(path) != known:
            raise DataError(f"{path} is not what was published (sha256); {AGAIN}")
        _whole.add(seen)
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read ({error.strerror}); {AGAIN}") from error


FORMAT = 2
FORMAT_FILE = "store.json"
UNFINISHED = ".unfinished"
LOOKS = 3  # a folder that is being replaced is moved twice; another look finds it in its new place

MODES = ("reuse", "read-only")
log = logging.getLogger(__name__)


class Store:
    """Artefacts under one root folder, shared by any number of processes.

    mode "read-only" never writes, not even locks. force: stages that this object rebuilds once although published;
    stages that read them are not rebuilt unless named too. since: seconds since the epoch; force does not rebuild what
    was published later, so that the cells of a sweep rebuild shared artefacts once. Raises ConfigError for a store of
    another format.
    """

    def __init__(
        self, root: str | Path, mode: str = "reuse", force: Collection[str] = (), since: float | None = None
    ) -> None:
        if mode not in MODES:
            raise ConfigError(f"store mode {mode!r} is not one of: {', '.join(MODES)}")
        if mode == "read-only" and force:
            raise ConfigError(f"a read-only store cannot rebuild {', '.join(sorted(force))}; drop one of the two")
        self.root = Path(root).expanduser().absolute()
        self.mode = mode
        self._force = frozenset(force)
        self._since = since
        self._built: set[str] = set()
        self._known_format()

    def find(self, step: Step) -> Artefact | None:
        """The published artefact, or None. Reads its manifest without hashing files; DataError if the manifest is
        damaged."""
        for look in range(LOOKS):
            folder = self._published(step)
            try:
                artefact = load_artefact(folder) if folder else None
            except DataError:
                if look == LOOKS - 1:
                    raise
                continue
            if artefact and artefact.key != step.key:
                raise DataError(f"{artefact.path} holds key {artefact.key}, not {step.key}: prune it")
            return artefact
        raise AssertionError("the last look returns or raises")

    def status(self, step: Step) -> Literal["cached", "unfinished", "to do"]:
        """The state that `make` would find; a forced stage is to do."""
        if self._reusable(step):
            return "cached"
        return "unfinished" if self.work_folder(step).is_dir() else "to do"

    def failure(self, step: Step) -> str | None:
        """Why the last attempt at this step, or at one that it needs, failed; None if none did."""
        for each in step.walk():
            work = None if self.find(each) else read_work(self.work_folder(each))
            if work and work.get("failure"):
                return f"{each.stage}: {work['failure']}"
        return None

    def missing(self, step: Step) -> list[Step]:
        """The steps that `make(step)` would build, inputs first. What is published needs no inputs."""
        todo: dict[str, Step] = {}

        def visit(wanted: Step) -> None:
            if wanted.key not in todo and not self._reusable(wanted):
                for upstream in wanted.needs.values():
                    visit(upstream)
                todo[wanted.key] = wanted

        for forced in filter(self._is_forced, step.walk() if self._force else []):
            visit(forced)
        visit(step)
        return list(todo.values())

    def make(self, step: Step) -> Artefact:
        """The artefact of `step`: the published one, else built now, inputs first.

        A stopped build is resumed in its unfinished folder. Processes that need the same key wait for each other.
        Raises what a build raises, StorageError for disk errors, and ConfigError when a read-only store lacks
        something.
        """
        todo = self.missing(step)
        if todo and self.mode == "read-only":
            lacks = ", ".join(str(each) for each in todo)
            raise ConfigError(f"store {self.root} is read-only and cannot make {step}: it lacks {lacks}")
        for each in todo:
            signals.look()
            self._ensure(each)
        return self._get(step)

    def read(self, step: Step) -> Artefact:
        """`make`, for reading outside a build: DataError if its files are not what was published."""
        self.make(step)
        return self._whole(step)

    def require_writable(self) -> None:
        """StorageError if the first writes of `make` fail: the root, its format file and a lock."""
        self._found_store()
        with locked(self.root, "store", on_wait=lambda: None):
            pass

    def artefact_folders(self) -> Iterator[Path]:
        """Folders of all published artefacts, sorted by stage and name, damaged ones and those moved aside too."""
        for stage in listing(self.root):
            if not stage.startswith("."):
                names = listing(self.root / stage)
                yield from (self.root / stage / name for name in names if parse_folder(name))

    def unfinished_folders(self) -> Iterator[Path]:
        """Folders of work that was begun and is not published, sorted by name."""
        yield from (self.root / UNFINISHED / name for name in listing(self.root / UNFINISHED))

    def work_folder(self, step: Step) -> Path:
        """Where `step` is or would be built, with its training checkpoints (subfolder CHECKPOINTS)."""
        free = self.free_folder(step)
        return next(iter(disk.folders(free)), free)

    def free_folder(self, step: Step) -> Path:
        """The name of its unfinished folder while it has no disk."""
        return self.root / UNFINISHED / f"{step.stage}-{step.key[:KEY_CHARS]}"

    def _get(self, step: Step) -> Artefact:
        artefact = self.find(step)
        if artefact is None:
            raise DataError(f"{step} vanished from {self.root} while it was needed; was it pruned? run again")
        return artefact

    def _whole(self, step: Step) -> Artefact:
        return check(self._get(step), step.by_part)

    def _is_forced(self, step: Step) -> bool:
        return step.stage in self._force and step.key not in self._built and not self._is_recent(step)

    def _is_recent(self, step: Step) -> bool:
        if self._since is None:
            return False
        with suppress(DataError):  # damaged: will be rebuilt
            artefact = self.find(step)
            return artefact is not None and artefact.created > self._since
        return False

    def _reusable(self, step: Step) -> bool:
        return not self._is_forced(step) and self.find(step) is not None

    def _published(self, step: Step) -> Path | None:
        """The folder of `step`. An artefact moved aside counts until its replacement is in place."""
        usual = self.root / step.stage / step.folder_name
        for folder in (usual, usual.with_name(usual.name + ASIDE), usual):  # it may be replaced at this moment
            if folder.is_dir():
                return folder
        folders = self._folders(step)
        return min(folders, key=lambda folder: folder.name.endswith(ASIDE), default=None)

    def _folders(self, step: Step) -> list[Path]:
        """All that hold it, whatever their readable part: it is no part of the key."""
        stage, key = self.root / step.stage, step.key[:KEY_CHARS]
        named = ((parse_folder(name), name) for name in disk.names(stage) if key in name)
        return [stage / name for parts, name in named if parts and parts.key == key]

    def _ensure(self, step: Step) -> None:
        """Builds and publishes `step` unless another process has done so in the meantime."""
        self._found_store()
        sweep(self.root)  # first: the space held by an interrupted removal may be needed
        with locked(self.root, step.key, on_wait=lambda: self._tell_wait(step)):
            with storage_errors(self.root):
                self._settle(step)
            if self._reusable(step):
                return
            inputs = {name: self._whole(upstream) for name, upstream in step.needs.items()}
            folder = self._claimed(step)
            if folder is None:
                return
            with disk.owned(folder):
                forced = self._is_forced(step)
                complete(step, folder, inputs, forced, self._replaced(step) if forced else None)
            with storage_errors(self.root):
                self._publish(step, folder)
            self._built.add(step.key)

    def _replaced(self, step: Step) -> Artefact | None:
        """The published artefact, unless it is damaged."""
        with suppress(DataError):
            return self.find(step)
        return None

    def _claimed(self, step: Step) -> Path | None:
        """The folder that this process builds in; None if another one, for lack of locks, has published meanwhile."""
        free, told = self.free_folder(step), False
        with storage_errors(self.root):
            self._drop_distrusted_work(step)
        while not self._reusable(step):
            read_work(self.work_folder(step))  # reports a damaged record under its path
            with storage_errors(self.root):
                folder = disk.claim(free)
            if folder is not None:
                return folder
            if not told:
                self._tell_wait(step)
                told = True
            signals.look()
            time.sleep(POLL_S)
        return None

    def _tell_wait(self, step: Step) -> None:
        work = read_work(self.work_folder(step)) or {}
        log.info("%s: waiting for pid %s on %s", step, work.get("pid", "unknown"), work.get("host", "unknown host"))

    def _settle(self, step: Step) -> None:
        """Completes a replacement that a crash interrupted: the new artefact stays if it is in place, else the old
        one."""
        folders = self._folders(step)
        for aside in (folder for folder in folders if folder.name.endswith(ASIDE)):
            if len(folders) > 1:
                discard(self.root, aside)
            else:
                os.rename(aside, aside.with_name(aside.name.removesuffix(ASIDE)))

    def _drop_distrusted_work(self, step: Step) -> None:
        """A forced rebuild resumes a stopped forced rebuild, but no work begun without force."""
        for folder in disk.folders(self.free_folder(step)) if self._is_forced(step) else []:
            if not disk.is_owned(folder) and not (read_work(folder) or {}).get("forced"):
                discard(self.root, folder)

    def _publish(self, step: Step, work: Path) -> None:
        old, new = self._published(step), self.root / step.stage / step.folder_name
        if old and not self._is_forced(step):  # by another process, for lack of locks
            discard(self.root, work)
            return
        new.parent.mkdir(exist_ok=True)
        aside = old and old.with_name(old.name + ASIDE)
        if old and aside:
            os.rename(old, aside)
        try:
            os.rename(work, new)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            discard(self.root, work)  # the same, at this moment
        sync(new.parent)
        sync(self.root / UNFINISHED)
        sync(self.root)
        if aside:
            discard(self.root, aside)
        for left in disk.folders(self.free_folder(step)):  # of processes killed on a file system without locks
            if not disk.is_owned(left):
                discard(self.root, left)

    def _known_format(self) -> bool:
        """Whether the store exists; ConfigError if this code cannot read it."""
        path = self.root / FORMAT_FILE
        try:
            found = json.loads(path.read_bytes())["format"]
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError):
            raise DataError(f'{path} is damaged: it should read {{"format": {FORMAT}}}') from None
        if found != FORMAT:
            raise ConfigError(
                f"store {self.root} has format {found}, this sept reads {FORMAT}; "
                "choose another store root, or the sept that wrote it"
            )
        return True

    def _found_store(self) -> None:
        """Creates the root and its format file, once."""
        if not self._known_format():
            with locked(self.root, "store", on_wait=lambda: None), storage_errors(self.root):
                write_json(self.root / FORMAT_FILE, {"format": FORMAT}, f".{FORMAT_FILE}.{uuid.uuid4().hex}")
