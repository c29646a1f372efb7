"""Building in the unfinished folder: attempts and seconds are counted, and a complete build gets its manifest.

The manifest records the versions of code and libraries, which are never part of a key.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from sept.errors import ConfigError, DataError, NonFiniteError, StorageError
from sept.runtime import meter, signals
from sept.store.disk import (
    fingerprint,
    payload,
    permit,
    refusals,
    storage_errors,
    sync,
    sync_folders,
    temporary_name,
    write_json,
)
from sept.store.step import CHECKPOINTS, MANIFEST, Artefact, Step, checksum, plain, read_manifest

WORK = "work.json"  # the step, and the cost of its ended attempts
USED = "used.json"  # what the running attempt has used so far, written every few seconds
COUNTED: dict[str, type | tuple[type, ...]] = {  # fields of WORK that the next attempt continues from
    "attempts": int,
    "seconds": (int, float),
    "used": dict,
    "started": (int, float),
    "forced": bool,
}


def complete(
    step: Step, folder: Path, inputs: Mapping[str, Artefact], forced: bool, replaced: Artefact | None = None
) -> None:
    """Builds `step` in `folder`: payload and manifest, ready to be renamed into place.

    replaced: the artefact whose place it takes; the manifest keeps its cost. If a process is killed after the manifest
    was written, the build is not run again. The build's exceptions are passed on and its files stay. The caller holds
    the key's lock.
    """
    if not (folder / MANIFEST).exists():
        with storage_errors(folder / WORK):
            work = _begin(step, folder, forced)
        started = time.perf_counter()
        with _end_marked(folder):
            with refusals(folder), meter.measured(step.gpus, partial(_note, step, folder, work["attempts"])) as read:
                facts = step.build(folder, inputs)
                used = meter.added(work["used"], read())
            wall_s = work["seconds"] + time.perf_counter() - started
            work |= {"seconds": wall_s, "used": used, "earlier": earlier(replaced)}
            _seal(step, folder, inputs, work, facts)
    read_manifest(folder)
    with storage_errors(folder):
        if (folder / CHECKPOINTS).exists():
            shutil.rmtree(folder / CHECKPOINTS)
        (folder / USED).unlink(missing_ok=True)
        (folder / WORK).unlink(missing_ok=True)


def read_work(folder: Path) -> dict[str, Any] | None:
    """The record of an unfinished folder: step, attempts, seconds, pid, host, and why the last attempt failed if it
    did; None when there is none."""
    try:
        work = json.loads((folder / WORK).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        work = None
    if not isinstance(work, dict) or not all(isinstance(work.get(name), kind) for name, kind in COUNTED.items()):
        raise DataError(f"{folder / WORK} is damaged; remove it with `python -m sept.store prune --unfinished`")
    return work


def _note(step: Step, folder: Path, attempt: int, used: meter.Used) -> None:
    """Keeps what the running attempt has used so far, and of what: a killed process records no end."""
    with suppress(OSError, StorageError):
        noted = {"attempt": attempt, "used": used, "device": meter.device(step.gpus), "gpus": step.gpus}
        write_json(folder / USED, noted)


def _noted(folder: Path, attempt: int) -> dict[str, Any]:
    """used: by the last attempt, as far as it was noted; device and gpus: of the one that was noted last."""
    noted = {"used": meter.nothing(), "device": "", "gpus": 0}
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((folder / USED).read_bytes())
        noted |= {"device": str(found["device"]), "gpus": int(found["gpus"])}
        if found["attempt"] == attempt:
            noted["used"] = meter.added(found["used"], {})
    return noted


def earlier(replaced: Artefact | None) -> dict[str, Any] | None:
    """What the artefact used that a new one replaces, with all that it had replaced itself."""
    if replaced is None:
        return None
    before, manifest = replaced.manifest["earlier"], replaced.manifest
    own = {"builds": 1, "flops": float(replaced.facts.get("flops", 0.0)), "wall_s": manifest["wall_s"]}
    if before is not None:
        own = {name: value + before[name] for name, value in own.items()}
    used = meter.added(manifest["used"], before["used"] if before else meter.nothing())
    return own | {"used": used, "device": manifest["device"], "gpus": manifest["gpus"]}


def so_far(folder: Path, work: Mapping[str, Any]) -> dict[str, Any]:
    """wall_s and used of all attempts at an unfinished build, the last one included; device and gpus of the last."""
    noted = _noted(folder, work["attempts"])
    used = meter.added(work["used"], noted["used"])
    return {**noted, "wall_s": work["seconds"] + _last_attempt_s(folder, work), "used": used}


def _begin(step: Step, folder: Path, forced: bool) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    before = read_work(folder)
    spent = so_far(folder, before) if before else {"wall_s": 0.0, "used": meter.nothing()}
    work = {
        "step": described(step),
        "attempts": before["attempts"] + 1 if before else 1,
        "seconds": spent["wall_s"],
        "used": spent["used"],
        "started": time.time(),
        "forced": forced,
        "commit": commit(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }
    write_json(folder / WORK, work)
    return work


def described(step: Step) -> dict[str, Any]:
    """The step's part of a manifest, from which its key can be recomputed."""
    inputs = {name: {"stage": upstream.stage, "key": upstream.key} for name, upstream in step.inputs.items()}
    return {**step.identity, "key": step.key, "inputs": inputs}


def _last_attempt_s(folder: Path, work: Mapping[str, Any]) -> float:
    """Seconds the attempt in `work` lasted, until its last write, as a killed process records no end."""
    paths = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    newest: float = max(path.stat().st_mtime for path in paths)
    return max(0.0, newest - work["started"])


@contextmanager
def _end_marked(folder: Path) -> Iterator[None]:
    """Records a failing attempt's reason, and its end time, which `_last_attempt_s` reads."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError, DataError):
            if isinstance(error, Exception) and signals.arrived() is None:
                write_json(folder / WORK, (read_work(folder) or {}) | {"failure": " ".join(str(error).split())})
            os.utime(folder / WORK, (time.time(),) * 2)  # the kernel's own timestamp lags by a clock tick
        raise


def _seal(
    step: Step, folder: Path, inputs: Mapping[str, Artefact], work: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Writes the manifest, last of all, when the files are safely on disk and no signal interrupted the build."""
    assert not (folder / MANIFEST).exists(), f"the build of {step} wrote {MANIFEST}, which is the store's"
    try:
        facts = plain(facts, f"{step.stage}.facts")
    except ConfigError as error:  # not a setting is wrong but a computed value
        raise NonFiniteError(str(error)) from None
    for name in step.inputs:
        _refuse_changed(inputs[name], step)
    with storage_errors(folder):
        manifest = {
            **described(step),
            "files": _fixed_files(folder),
            "facts": facts,
            "commit": work["commit"],
            "versions": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_s": round(work["seconds"], 3),
            "used": work["used"],
            "device": meter.device(step.gpus),
            "gpus": step.gpus,
            "earlier": work["earlier"],
            "attempts": work["attempts"],
            "resumed": work["attempts"] > 1,
        }
        signals.look()
        write_json(folder / MANIFEST, manifest | {"checksum": checksum(manifest)})


def _fixed_files(folder: Path) -> dict[str, Any]:
    """{relative path: {size, sha256}} of the payload, after syncing it to disk."""
    files = {}
    # A process killed in `write_json` leaves its temporary manifest, which the next one overwrites.
    for name in payload(
        folder, but=frozenset({CHECKPOINTS, WORK, USED, temporary_name(USED), temporary_name(MANIFEST)})
    ):
        permit(folder / name, folder / WORK)
        sync(folder / name)
        files[name] = fingerprint(folder / name)
    sync_folders(folder)
    return files


def _refuse_changed(artefact: Artefact, step: Step) -> None:
    """The inputs must still be what was published, by manifest and sizes (cheap; `verify` hashes)."""
    changed = read_manifest(artefact.path)["files"] != artefact.manifest["files"]
    for name, known in artefact.manifest["files"].items():
        path = artefact.path / name
        changed = changed or not path.is_file() or path.stat().st_size != known["size"]
    if changed:
        raise DataError(f"{artefact.path} changed while {step} was built from it; verify the store and run again")


PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "pillow")
PACKAGE_FOLDER = Path(__file__).resolve().parent.parent


@cache
def commit() -> dict[str, Any] | None:
    """{sha, dirty} of the checkout this package runs from; None when it is not one (installed, no git).

    Determined once per process, as the code is loaded once.
    dirty: the package has files that are modified or not in the commit.
    """
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:  # the repository around a venv is not ours
        return None
    sha, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ".")
    return None if sha is None or changes is None else {"sha": sha, "dirty": changes != ""}


def _git(*arguments: str) -> str | None:
    # A git hook sets GIT_DIR for its own repository; a reader must not take the index lock.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(PACKAGE_FOLDER), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


@cache
def versions() -> dict[str, str | None]:
    """Versions of Python, the platform and the PACKAGES, found without importing them; None: not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found
