"""The pool embedded by the retriever, shard by shard; unreadable images are listed and masked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sept import cost
from sept.config import Model, Preprocess
from sept.data.pool import Union
from sept.machine import Machine
from sept.progress import progress
from sept.retrieval.encoder import Encoder
from sept.retrieval.features import ROWS_PER_SHARD, Features, Skip, embed
from sept.stages.pool import open_pool
from sept.store import Artefact

LEAST_ROWS_PER_SHARD = 1_000
SHARDS = 20  # of a pool too small for full ones, so that a killed embedding loses little
NAMED_SKIPS = 1_000  # in the manifest; all are in the shards' own files


def open_encoder(
    retriever: Artefact, preprocess: Preprocess, machine: Machine, batch_size: int
) -> tuple[Encoder, Model]:
    """The encoder of a retriever artefact."""
    model = Model(**retriever.manifest["spec"]["model"])
    return Encoder(retriever.path, model, preprocess, machine, batch_size), model


def skipped(pool: Union, row: int, reason: str) -> Skip:
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
    machine: Machine,
    place: Mapping[str, Any],
    batch_size: int,
    max_unreadable: float,
) -> dict[str, Any]:
    pool = open_pool({"pool0": inputs["pool"]}, [place])
    encoder, model = open_encoder(inputs["retriever"], Preprocess(**spec["preprocess"]), machine, batch_size)
    read = partial(pool.image, side=spec["preprocess"]["resize"])
    with progress("embed the pool", len(pool)) as advance:

        def encode(first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
            vectors, failures = encoder(read, range(first, last), advance)
            return vectors, [skipped(pool, first + place, reason) for place, reason in failures]

        per_shard = min(ROWS_PER_SHARD, max(LEAST_ROWS_PER_SHARD, len(pool) // SHARDS))
        facts: dict[str, Any] = embed(folder, len(pool), encode, max_unreadable, per_shard)
    skips = [skip for shard in Features.open(folder).shards for skip in shard.skipped]
    return {
        **facts,
        "unreadable": named(skips),
        "flops": len(pool) * cost.forward_flops(model, spec["preprocess"]["crop"]),
    }
