"""Debian packages as folders: fetched and unpacked once, never installed."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sept.errors import DataError, StorageError


@dataclass(frozen=True)
class Package:
    """A package that is there: its name, exact version, and the folder of its files."""

    name: str
    version: str
    folder: Path

    def files(self, *endings: str) -> list[Path]:
        """Its files (no links) with these endings in lower case, in a stable order."""
        found = (path for path in self.folder.rglob("*") if path.suffix.lower() in endings)
        return sorted(path for path in found if path.is_file() and not path.is_symlink())


def words(text: str) -> list[str]:
    """Names that stand in a text, with blanks and line ends between them."""
    return text.split()


def fetched(names: Sequence[str], cache: Path) -> dict[str, Package]:
    """The named packages in `cache`; one that is there is not fetched again. Raises DataError for one that fails."""
    cache.mkdir(parents=True, exist_ok=True)
    absent = [name for name in names if not archives(name, cache)]
    if absent:
        call(["apt-get", "download", *absent], cache)
    return {name: unpacked(name, cache) for name in names}


def archives(name: str, cache: Path) -> list[Path]:
    return sorted(cache.glob(f"{name}_*.deb"))


def unpacked(name: str, cache: Path) -> Package:
    """The one archive of a package as a folder beside it, published by a rename: half a folder is never read."""
    found = archives(name, cache)
    if len(found) != 1:
        raise DataError(f"{cache} has {len(found)} archives {name}_*.deb; leave one there, or none to fetch it")
    [archive] = found
    version = archive.name.split("_")[1].replace("%3a", ":")
    folder = cache / archive.stem
    if not folder.is_dir():
        part = cache / f"{archive.stem}.part"
        shutil.rmtree(part, ignore_errors=True)
        call(["dpkg-deb", "-x", str(archive), str(part)], cache)
        part.rename(folder)
    return Package(name, version, folder)


def call(command: Sequence[str], folder: Path) -> None:
    """Runs a Debian tool. Raises DataError where it is absent, StorageError or DataError with its last words."""
    if shutil.which(command[0]) is None:
        raise DataError(f"{command[0]} is not there; worlds are made of Debian packages: run this on Debian or Ubuntu")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        told = [line.strip() for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg-deb: error"))]
        failure = StorageError if "No space left" in done.stderr else DataError
        said = "; ".join(told) or f"exit status {done.returncode}"
        raise failure(f"{command[0]} {command[1]}: {said}; `apt-get update` renews the lists of packages")
