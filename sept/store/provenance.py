"""Which code and which libraries made an artefact: recorded in its manifest, never part of a key."""

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "pillow")
PACKAGE_FOLDER = Path(__file__).resolve().parent.parent


@cache
def commit() -> dict[str, Any] | None:
    """{sha, dirty} of the checkout this package runs from; None when it is not one (installed, no git).

    Asked once a process, like the code is loaded once.
    dirty: the package has files that differ from the commit's or are not in it.
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
