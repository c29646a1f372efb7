"""The table of the pool's images, and for `patterns` the images themselves, drawn into tar shards."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sept.data import locate
from sept.data.pool import Pool, write_manifest
from sept.machine import Machine
from sept.store import Artefact

IMAGES = "images"


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    *,
    machine: Machine,
    kind: str,
    path: str | None,
) -> dict[str, Any]:
    if kind == "patterns":
        from sept.data.patterns import draw_pool

        shutil.rmtree(folder / IMAGES, ignore_errors=True)
        draw_pool(folder / IMAGES, spec["images"], spec["side"], spec["seed"], machine.threads)
        kind, path = "webdataset", str(folder / IMAGES)
    assert path is not None
    return write_manifest(folder, locate.entries(kind, path))


def open_pool(artefact: Artefact, kind: str, path: str | None) -> Pool:
    """The images behind a pool artefact; `path` is where they lie now, nothing for `patterns`."""
    if kind == "patterns":
        kind, path = "webdataset", str(artefact.path / IMAGES)
    assert path is not None
    root = locate.root(kind, path)
    return Pool.open(artefact.path, dict.fromkeys(artefact.facts["sources"], root))
