"""The pool embedded by the retriever, shard by shard; unreadable images are listed and masked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sept import engines
from sept.data.locate import Location
from sept.retrieval.embedding import ROWS_PER_SHARD, Allowed, conclude, embed_shard, missing
from sept.retrieval.features import Features
from sept.retrieval.shards import Skip
from sept.retrievers import settings
from sept.retrievers.settings import Preprocess
from sept.runtime.hardware import Runtime
from sept.runtime.progress import progress
from sept.runtime.settings import Engine
from sept.stages import VERSIONS
from sept.stages.inputs import backbone_of, library_of, open_encoder
from sept.stages.pool import describe_skips, open_pool, skipped
from sept.store.step import Artefact, Step

if TYPE_CHECKING:
    from sept.config import Experiment

LEAST_ROWS_PER_SHARD = 1_000
SHARDS = 20  # of a small pool, so that a killed embedding loses little
BYTES = 2  # per stored number


@dataclass(frozen=True)
class FeaturesSpec:
    """What determines an image's vector, besides the retriever's weights."""

    feature: str
    preprocess: Preprocess
    precision: str


def step(e: "Experiment", pool: Step, location: Location, retriever: Step, runtime: Runtime) -> Step:
    r, preprocess = e.retriever, e.retriever.resolved_preprocess()
    spec = FeaturesSpec(r.feature, preprocess, runtime.precision)
    images = pool.estimate["images"]
    return Step(
        "features",
        VERSIONS["features"],
        spec,
        {"retriever": retriever, "pool": pool},  # errors in the file are reported before a scan
        partial(
            build,
            spec=spec,
            location=location,
            runtime=runtime,
            batch_size=r.batch_size,
            max_unreadable=e.pool.max_unreadable,
            engine=e.engine,
        ),
        slug=f"{pool.slug}-{r.name}",
        estimate={
            "images": images,
            "flops": images * settings.flops(r.library, r.backbone, preprocess.crop),
            "bytes": images * BYTES * settings.dim(r.library, r.backbone, r.feature),
        },
        by_part=("shard-*.npy",),
    )


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    *,
    spec: FeaturesSpec,
    location: Location,
    runtime: Runtime,
    batch_size: int,
    max_unreadable: float,
    engine: Engine,
) -> dict[str, Any]:
    job = Embedding(
        folder.absolute(), inputs["pool"], inputs["retriever"], spec, runtime, location, batch_size, max_unreadable
    )
    rows, per_shard = job.rows, job.rows_per_shard
    todo = missing(folder, rows, per_shard)
    with progress("embed the pool", rows) as advance:
        held = rows - sum(min(per_shard, rows - index * per_shard) for index in todo)
        advance(held)
        alone = engine.name == "local" and runtime.devices == 1
        make = partial(job.worker, advance=advance) if alone else job.worker  # a progress bar cannot be pickled

        def done(index: int) -> None:
            if not alone:
                advance(min(per_shard, rows - index * per_shard))

        to = folder.absolute()
        engines.run(engine.name, make, todo, runtime, to, done, address=engine.address, workers=engine.workers)
    facts: dict[str, Any] = conclude(folder, rows, max_unreadable, per_shard)
    skips = [skip for shard in Features.open(folder).shards for skip in shard.skipped]
    made = inputs["retriever"]
    flops = rows * settings.flops(library_of(made), backbone_of(made), spec.preprocess.crop)
    return {**facts, "unreadable": describe_skips(skips), "flops": flops}


@dataclass(frozen=True)
class Embedding:
    """The embedding of one source, picklable for workers anywhere: paths and settings, no images."""

    folder: Path
    pool: Artefact
    retriever: Artefact
    spec: FeaturesSpec
    runtime: Runtime
    location: Location
    batch_size: int
    max_unreadable: float

    @property
    def rows(self) -> int:
        return int(self.pool.facts["rows"])

    @property
    def rows_per_shard(self) -> int:
        return min(ROWS_PER_SHARD, max(LEAST_ROWS_PER_SHARD, self.rows // SHARDS))

    def worker(self, device: str, advance: Callable[[int], None] = lambda n: None) -> Callable[[int], None]:
        """Returns a function that embeds and commits one shard on this device."""
        pool, spec = open_pool({"pool0": self.pool}, [self.location]), self.spec
        runtime = engines.share(self.runtime, device)
        encoder = open_encoder(self.retriever, spec.feature, spec.preprocess, runtime, self.batch_size, spec.precision)
        read = partial(pool.image, side=spec.preprocess.resize)

        def encode(first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
            vectors, failures = encoder(read, range(first, last), advance)
            return vectors, [skipped(pool, first + at, reason) for at, reason in failures]

        allowed = Allowed(self.folder, self.rows, self.max_unreadable, self.rows_per_shard)

        def work(index: int) -> None:
            embed_shard(index, encode, allowed)

        return work
