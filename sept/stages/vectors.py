"""Pool and queries from files of vectors, in the form that embedding produces, without a retriever."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sept.data.locate import Location
from sept.data.sources.vectors import VectorFile, open_vectors
from sept.errors import ConfigError, DataError
from sept.retrieval.embedding import ROWS_PER_SHARD, embed
from sept.retrieval.shards import Skip
from sept.runtime.progress import progress
from sept.stages import VERSIONS
from sept.stages.features import BYTES, LEAST_ROWS_PER_SHARD, SHARDS
from sept.stages.pool import describe_skips, open_pool
from sept.stages.queries import IDS, VECTORS
from sept.store.step import Artefact, Step

ZERO = "a zero vector"
LOOKED_AT = 16  # names that are checked to be images


@dataclass(frozen=True)
class VectorsSpec:
    """The spec of features from the pool's vectors. skipped: how rows that are left out are reported."""

    scaled: str = "unit length"
    skipped: str = "by name"


@dataclass(frozen=True)
class VectorQueriesSpec:
    """listing: digest of vectors and names."""

    listing: str
    scaled: str = "unit length"


def features(pool: Step, location: Location, max_unreadable: float) -> Step:
    """The pool's vectors at unit length, in the form of `sept.stages.features`. Zero vectors are skipped."""
    assert location.path is not None
    images, dim = pool.estimate["images"], open_vectors(location.path).dim
    return Step(
        "features",
        VERSIONS["features"],
        VectorsSpec(),
        {"pool": pool},
        partial(build_features, location=location, max_unreadable=max_unreadable),
        slug=pool.slug,
        estimate={"images": images, "dim": dim, "bytes": images * BYTES * dim},
        by_part=("shard-*.npy",),
    )


def build_features(
    folder: Path, inputs: Mapping[str, Artefact], *, location: Location, max_unreadable: float
) -> dict[str, Any]:
    assert location.path is not None
    file, rows = open_vectors(location.path), int(inputs["pool"].facts["rows"])
    file.require_names(rows)
    pool, skips = open_pool({"pool0": inputs["pool"]}, [location]), list[Skip]()

    def encode(first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
        vectors, zero = unit_vectors(file, first, last, np.float16)
        found = [Skip(row, pool.key(row), ZERO) for row in zero]
        skips.extend(found)
        return vectors, found

    per_shard = min(ROWS_PER_SHARD, max(LEAST_ROWS_PER_SHARD, rows // SHARDS))
    with progress("copy the vectors", rows) as advance:
        done = 0

        def told(now: int) -> None:
            nonlocal done
            advance(now - done)
            done = now

        facts: dict[str, Any] = embed(folder, rows, encode, max_unreadable, per_shard, told)
    return {**facts, "unreadable": describe_skips(skips), "flops": 0.0}


def queries(path: str | None, pool: str | None) -> Step:
    """The vectors of a file as queries for those of another. Raises ConfigError if their widths differ."""
    assert path is not None
    assert pool is not None
    file, dim = open_vectors(path), open_vectors(pool).dim
    if file.dim != dim:
        raise ConfigError(
            f"query.path={path} has vectors of {file.dim:,} numbers and pool.path={pool} of {dim:,}: "
            "both must come from the same encoder"
        )
    spec = VectorQueriesSpec(file.identify())
    slug, estimate = f"vectors-{file.path.stem}", {"images": file.rows}
    return Step(
        "queries", VERSIONS["queries"], spec, {}, partial(build_queries, path=path), slug=slug, estimate=estimate
    )


def build_queries(folder: Path, inputs: Mapping[str, Artefact], *, path: str) -> dict[str, Any]:
    file = open_vectors(path)
    vectors, zero = unit_vectors(file, 0, file.rows, np.float32)
    ids = [*file.names()]
    file.require_names(len(ids))
    if zero:
        raise DataError(f"query.path={path}: {file.told(zero[0])} is {ZERO}")
    np.save(folder / VECTORS, vectors, allow_pickle=False)
    pq.write_table(pa.table({"id": ids, "class": [""] * len(ids)}), folder / IDS)
    return {"images": len(ids), "flops": 0.0}


def unit_vectors(file: VectorFile, first: int, last: int, dtype: Any) -> tuple[np.ndarray, list[int]]:
    """(last - first, D), each row divided by its length, and the indices of zero rows, which stay zero. Raises
    DataError for a NaN or infinity."""
    vectors, zero, row = np.empty((last - first, file.dim), dtype), list[int](), first
    for block in file.read(first, last):
        lengths = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
        wrong = np.flatnonzero(~np.isfinite(lengths))
        if len(wrong):
            raise DataError(f"{file.path}: the vector of {file.told(row + int(wrong[0]))} holds NaN or infinity")
        empty = lengths == 0
        zero += (row + np.flatnonzero(empty)).tolist()
        vectors[row - first : row - first + len(block)] = block / np.where(empty, 1, lengths)[:, None]
        row += len(block)
    return vectors, zero


def require_images(path: str | None) -> None:
    """DataError if the names of the vectors are no paths of image files, which a pre-training must read."""
    assert path is not None
    file = open_vectors(path)
    for name in islice(file.names(), LOOKED_AT):
        if not (file.path.parent / name).is_file():
            raise DataError(
                f"pool.path={path}: {name[:200]!r} is not the path of an image ({file.path.parent / name}): train.py "
                "pre-trains on images; search.py needs none"
            )
