"""The pool embedded by the retriever, shard by shard; unreadable images are listed and masked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sept import cost
from sept.config import Model, Preprocess
from sept.data.pool import ConcatPool
from sept.retrieval.embedding import ROWS_PER_SHARD, conclude, embed_shard, missing
from sept.retrieval.features import Features
from sept.retrieval.shards import Skip
from sept.retrievers.encoder import Encoder
from sept.runtime import engines
from sept.runtime.hardware import Runtime
from sept.runtime.progress import progress
from sept.stages.pool import open_pool
from sept.store import Artefact

LEAST_ROWS_PER_SHARD = 1_000
SHARDS = 20  # of a pool too small for full ones, so that a killed embedding loses little
NAMED_SKIPS = 1_000  # in the manifest; all are in the shards' own files


def open_encoder(
    retriever: Artefact, preprocess: Preprocess, runtime: Runtime, batch_size: int, precision: str
) -> tuple[Encoder, Model]:
    """The encoder of a retriever artefact, computing in the precision of the features that it makes or goes with."""
    model = Model(**retriever.manifest["spec"]["model"])
    return Encoder(retriever.path, model, preprocess, runtime, batch_size, precision=precision), model


def skipped(pool: ConcatPool, row: int, reason: str) -> Skip:
    """reason: the message of an ImageError of the pool, which begins with the key."""
    key = pool.key(row)
    return Skip(row, key, reason.removeprefix(f"{key}: "))


def named(skips: Sequence[Skip]) -> list[dict[str, Any]]:
    """The first of the skipped images, for a manifest."""
    return [asdict(skip) for skip in skips[:NAMED_SKIPS]]


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    *,
    runtime: Runtime,
    place: Mapping[str, Any],
    batch_size: int,
    max_unreadable: float,
    engine: Mapping[str, Any],
) -> dict[str, Any]:
    """engine: name, address and workers of what embeds."""
    job = Embedding(
        folder.absolute(), inputs["pool"], inputs["retriever"], spec, runtime, place, batch_size, max_unreadable
    )
    rows, per_shard = job.rows, job.rows_per_shard
    todo = missing(folder, rows, per_shard)
    with progress("embed the pool", rows) as advance:
        held = rows - sum(min(per_shard, rows - index * per_shard) for index in todo)
        advance(held)
        alone = engine["name"] == "local" and runtime.devices == 1
        make = partial(job.worker, advance=advance) if alone else job.worker  # a bar cannot be sent elsewhere

        def done(index: int) -> None:
            if not alone:
                advance(min(per_shard, rows - index * per_shard))

        options = {name: engine[name] for name in ("address", "workers")}
        engines.run(engine["name"], make, todo, runtime, folder.absolute(), done, **options)
    facts: dict[str, Any] = conclude(folder, rows, max_unreadable, per_shard)
    skips = [skip for shard in Features.open(folder).shards for skip in shard.skipped]
    model = Model(**inputs["retriever"].manifest["spec"]["model"])
    return {
        **facts,
        "unreadable": named(skips),
        "flops": rows * cost.forward_flops(model, spec["preprocess"]["crop"]),
    }


@dataclass(frozen=True)
class Embedding:
    """The embedding of one source, as a worker anywhere can be given it: paths and settings, no images."""

    folder: Path
    pool: Artefact
    retriever: Artefact
    spec: Mapping[str, Any]
    runtime: Runtime
    place: Mapping[str, Any]
    batch_size: int
    max_unreadable: float

    @property
    def rows(self) -> int:
        return int(self.pool.facts["rows"])

    @property
    def rows_per_shard(self) -> int:
        return min(ROWS_PER_SHARD, max(LEAST_ROWS_PER_SHARD, self.rows // SHARDS))

    def worker(self, device: str, advance: Callable[[int], None] = lambda n: None) -> Callable[[int], None]:
        """What embeds and commits one shard on this device."""
        pool = open_pool({"pool0": self.pool}, [self.place])
        preprocess = Preprocess(**self.spec["preprocess"])
        runtime = engines.share(self.runtime, device)
        encoder, _ = open_encoder(self.retriever, preprocess, runtime, self.batch_size, self.spec["precision"])
        read = partial(pool.image, side=preprocess.resize)

        def encode(first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
            vectors, failures = encoder(read, range(first, last), advance)
            return vectors, [skipped(pool, first + at, reason) for at, reason in failures]

        def work(index: int) -> None:
            embed_shard(self.folder, index, self.rows, encode, self.max_unreadable, self.rows_per_shard)

        return work
