"""The table of the images of one source; for the embedded world also the images, generated into tar shards."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sept.data import locate
from sept.data.locate import Location
from sept.data.pool import ConcatPool, Pool, write_manifest
from sept.data.settings import SYNTHETIC_POOLS
from sept.data.settings import Pool as PoolSettings
from sept.data.sources.files import Root
from sept.data.sources.layouts import root
from sept.retrieval.shards import Skip
from sept.runtime.hardware import Runtime
from sept.runtime.progress import progress
from sept.stages import VERSIONS
from sept.stages.inputs import Presence
from sept.store.step import Artefact, Step

IMAGES = "images"
NAMED = 1_000  # listed photos missing on disk that are named at most
NAMED_SKIPS = 1_000  # in a manifest at most; all are in the shards' files


@dataclass(frozen=True)
class PoolSpec:
    """listing: digest of the source's contents."""

    kind: str
    listing: str


@dataclass(frozen=True)
class SyntheticPoolSpec:
    """A generated pool: number of images, and pixels per side."""

    kind: str
    images: int | None
    side: int | None
    seed: int


def locations(p: PoolSettings) -> list[Location]:
    """Where the images of each source are, in row order."""
    sources = p.kept() if p.kind == "union" else {p.kind: p}
    return [Location(source.kind, source.path, name) for name, source in sources.items()]


def step(p: PoolSettings, location: Location, runtime: Runtime, presence: Presence) -> Step:
    spec: PoolSpec | SyntheticPoolSpec
    if location.kind in SYNTHETIC_POOLS:
        spec, images = SyntheticPoolSpec(p.kind, p.images, p.side, p.seed), p.images or 0
        about = f"{images:,} images of {p.side} px, drawn"
    else:
        from sept.data.about import about_source
        from sept.paper import published

        kind, path = location.kind, str(location.path)
        size = published(location.name if p.kind == "union" else p.name).images
        (listing, images), about = presence.find(
            f"pool {path}", lambda: (locate.identify(kind, path), about_source(kind, path)), ((path, size), "")
        )
        spec = PoolSpec(kind, listing)
    slug = f"{p.name}-{location.name}" if p.kind == "union" else p.name
    return Step(
        "pool",
        VERSIONS["pool"],
        spec,
        {},
        partial(build, spec=spec, location=location, runtime=runtime),
        slug=slug,
        estimate={"images": images},
        about=about and f"pool {slug}: {about}",
    )


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    *,
    spec: PoolSpec | SyntheticPoolSpec,
    location: Location,
    runtime: Runtime,
) -> dict[str, Any]:
    kind, path = location.kind, location.path
    if isinstance(spec, SyntheticPoolSpec):
        from sept.data.patterns.drawing import draw_pool

        assert spec.images is not None
        assert spec.side is not None
        shutil.rmtree(folder / IMAGES, ignore_errors=True)
        draw_pool(folder / IMAGES, kind, spec.images, spec.side, spec.seed, runtime.threads)
        kind, path = "webdataset", str(folder / IMAGES)
    assert path is not None
    absent: list[str] = []
    with progress("list the pool", None) as advance:
        found = locate.entries(kind, path, runtime.threads, folder, advance, absent.append)
        facts = write_manifest(folder, found)
    return facts | {"absent": len(absent), "named_absent": absent[:NAMED]}


def open_pool(inputs: Mapping[str, Artefact], locations: Sequence[Location]) -> ConcatPool:
    """The images of the artefacts `pool0`, `pool1`, .. in this order, at their present locations."""
    return ConcatPool({location.name: _open(inputs[f"pool{i}"], location) for i, location in enumerate(locations)})


def _open(artefact: Artefact, location: Location) -> Pool:
    return Pool.open(artefact.path, dict.fromkeys(artefact.facts["sources"], root_of(artefact, location)))


def root_of(artefact: Artefact, location: Location) -> Root:
    """The folder or URL that the shards of a source are relative to."""
    kind, path = location.kind, location.path
    if kind in SYNTHETIC_POOLS:
        kind, path = "webdataset", str(artefact.path / IMAGES)
    assert path is not None
    return root(kind, path)


def skipped(pool: ConcatPool, row: int, reason: str) -> Skip:
    """The record of an image that cannot be decoded. reason: the message of the pool's ImageError, which begins with
    the key."""
    key = pool.key(row)
    return Skip(row, key, reason.removeprefix(f"{key}: "))


def describe_skips(skips: Sequence[Skip]) -> list[dict[str, Any]]:
    """The first of the skipped images, for a manifest."""
    return [asdict(skip) for skip in skips[:NAMED_SKIPS]]
