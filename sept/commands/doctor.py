"""What a run finds on this machine: versions, devices, memory of data workers, disk, data and weights."""

import argparse
import importlib.metadata
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from sept import compose, paths
from sept.app import shared_memory
from sept.errors import StorageError
from sept.runtime import driver
from sept.runtime.hardware import cores, cuda_devices
from sept.store.build import commit, versions

GB = 1e9
DEFAULTS = {"SEPT_STORE": "store", "SEPT_DATA": "data", "SEPT_WEIGHTS": "weights"}  # as in conf/
EXTRAS = ("faiss-gpu", "faiss-cpu", "wandb", "ray", "segmentation-models-pytorch", "open_clip_torch", "pymilvus")
WIDTH = 11  # of the names of the lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what was found; 0, or 74 if the store's folder cannot be written."""
    argparse.ArgumentParser(prog="sept doctor", description=__doc__).parse_args(arguments)
    paths.check_environment()
    for name, text in (*_software(), *_devices(), *_places()):
        print(f"{name:{WIDTH}}{text}")
    return 0 if _writable(_place("SEPT_STORE")) else StorageError.exit_code


def _software() -> Iterator[tuple[str, str]]:
    found, at = dict(versions()), commit()  # a copy: it is kept
    state = "" if at is None else f", commit {at['sha'][:8]}{' and changes' if at['dirty'] else ''}"
    yield "sept", f"{importlib.metadata.version('sept')}{state}, in {compose.CONF.parent}"
    yield "python", f"{found.pop('python')} on {found.pop('platform')}"
    yield "libraries", ", ".join(f"{name} {version or 'MISSING'}" for name, version in found.items())
    yield "optional", ", ".join(f"{name} {version}" for name in EXTRAS if (version := _version(name))) or "none"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[tuple[str, str]]:
    cards = driver.cards(cuda_devices())
    wrong = driver.why_none() or driver.why_unusable()
    for card in cards:
        yield "GPU", f"{card.name}, {card.memory / GB:.0f} GB, {'' if card.has_bf16 else 'no '}bfloat16"
    if wrong or not cards:
        yield "GPU", wrong or "none"
    yield "processor", f"{cores()} cores that this process may use"
    free = shared_memory.free_bytes()
    if free is not None:
        yield "/dev/shm", f"{free / GB:.1f} GB free, for the batches of data workers (hardware.workers)"


def _places() -> Iterator[tuple[str, str]]:
    store, data, weights = (_place(name) for name in DEFAULTS)
    free = shutil.disk_usage(_existing(store)).free / GB
    may = "can be written" if _writable(store) else "CANNOT BE WRITTEN: choose another by SEPT_STORE or store.root"
    yield "store", f"{store} ({_origin('SEPT_STORE')}): {may}, {free:,.1f} GB free"
    there = sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    told = ", ".join(there) or "no folder; the paper's data sets are looked for there, see `sept check`"
    yield "data", f"{data} ({_origin('SEPT_DATA')}): {told}"
    names = sorted({path for path in map(_file, compose.options("retriever")) if path})
    found = [name for name in names if (weights / name).is_file()]
    lacks = [name for name in names if name not in found]
    told = f"found {', '.join(found) or 'none'} of the retrievers' files; not there: {', '.join(lacks) or 'none'}"
    yield "weights", f"{weights} ({_origin('SEPT_WEIGHTS')}): {told}"


def _file(retriever: str) -> str | None:
    """The name of a retriever's file in SEPT_WEIGHTS, if it has one."""
    path = str(compose.option("retriever", retriever)["weights"] or "")
    return path.rpartition("/")[2] if "SEPT_WEIGHTS" in path else None


def _place(name: str) -> Path:
    return Path(os.environ.get(name, DEFAULTS[name])).expanduser()


def _origin(name: str) -> str:
    return name if name in os.environ else f"{name} is not set"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if each.exists())


def _writable(folder: Path) -> bool:
    above = _existing(folder)
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK)
