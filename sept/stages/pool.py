"""The table of the images of one source, and for a drawn one the images themselves, drawn into tar shards."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sept.config import SYNTHETIC_POOLS
from sept.data import locate
from sept.data.pool import ConcatPool, Pool, write_manifest
from sept.data.sources import root
from sept.runtime.hardware import Runtime
from sept.runtime.progress import progress
from sept.store import Artefact

IMAGES = "images"
NAMED = 1_000  # of the photos that a list names and the disk does not hold


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    *,
    runtime: Runtime,
    place: Mapping[str, Any],
) -> dict[str, Any]:
    """place: kind of the source, and path, where it lies now."""
    kind, path = place["kind"], place["path"]
    if kind in SYNTHETIC_POOLS:
        from sept.data.patterns import draw_pool

        shutil.rmtree(folder / IMAGES, ignore_errors=True)
        draw_pool(folder / IMAGES, kind, spec["images"], spec["side"], spec["seed"], runtime.threads)
        kind, path = "webdataset", str(folder / IMAGES)
    assert path is not None
    absent: list[str] = []
    with progress("list the pool", None) as advance:
        found = locate.entries(kind, path, runtime.threads, folder, advance, absent.append)
        facts = write_manifest(folder, found)
    return facts | {"absent": len(absent), "named_absent": absent[:NAMED]}


def open_pool(inputs: Mapping[str, Artefact], places: Sequence[Mapping[str, Any]]) -> ConcatPool:
    """The images behind the artefacts `pool0`, `pool1`, .. in this order; places: name, kind, path of each."""
    return ConcatPool({place["name"]: _open(inputs[f"pool{i}"], place) for i, place in enumerate(places)})


def _open(artefact: Artefact, place: Mapping[str, Any]) -> Pool:
    kind, path = place["kind"], place["path"]
    if kind in SYNTHETIC_POOLS:
        kind, path = "webdataset", str(artefact.path / IMAGES)
    assert path is not None
    return Pool.open(artefact.path, dict.fromkeys(artefact.facts["sources"], root(kind, path)))
