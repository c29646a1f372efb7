"""A selection: what was chosen and why, and its file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sept.errors import DataError
from sept.retrieval.features import IntArray
from sept.retrieval.shards import publish

SELECTION, COPIES = "selection.parquet", "copies.parquet"
QUANTILES = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("pool_key", pa.string(), nullable=False),
        pa.field("rank", pa.int32()),
        pa.field("query", pa.string()),
        pa.field("similarity", pa.float32()),
    ]
)
COPIES_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("pool_key", pa.string(), nullable=False),
        pa.field("copy_of_test", pa.string()),
        pa.field("copy_of", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Selection:
    """K distinct pool rows in the order chosen, each with the query of the list it came from, the rank in it (from 0)
    and the similarity. `depth` is how deep the lists were read to the last one chosen. nearest: where the lists are
    those of other vectors, the query nearest to each; `query` then counts these vectors."""

    rows: IntArray
    query: IntArray
    rank: IntArray
    similarity: npt.NDArray[np.float64]
    depth: int
    nearest: IntArray | None = None

    def take(self, places: IntArray) -> "Selection":
        """The chosen rows at these places, ascending."""
        rank = self.rank[places]
        return replace(
            self,
            rows=self.rows[places],
            query=self.query[places],
            rank=rank,
            similarity=self.similarity[places],
            depth=int(rank.max()) + 1,
        )


def save_selection(
    path: Path,
    rows: IntArray,
    pool_keys: Sequence[str],
    found: Selection | None = None,
    query_ids: Sequence[str] = (),
) -> None:
    """Writes `rows` in order as parquet with the columns of SCHEMA; pool_keys: (K,) the pool's own name of each.

    found says where the rows come from, query_ids (Q,) names its queries; without it, as for a random subset, rank,
    query and similarity are null.
    """
    assert len(rows) == len(pool_keys)
    none = pa.nulls(len(rows))
    rank, query, similarity = none, none, none
    if found is not None:
        rank, similarity = pa.array(found.rank, pa.int32()), pa.array(found.similarity.astype(np.float32))
        query = pa.array(query_ids, pa.string()).take(pa.array(found.query))
    _write(path, [pa.array(rows, pa.int64()), pa.array(pool_keys, pa.string()), rank, query, similarity], SCHEMA)


def save_copies(
    path: Path, rows: IntArray, pool_keys: Sequence[str], tests: Sequence[str | None], first: IntArray | None
) -> None:
    """Writes what the chosen rows (K,) are copies of, with the columns of COPIES_SCHEMA.

    tests: (K,) the test image that each is a copy of, if any. first: (K,) the index of the first image that each is a
    copy of, its own if none: `copy_of` is the row of another, or null; None if not compared.
    """
    copy_of = pa.nulls(len(rows))
    if first is not None:
        copy_of = pa.array(rows[first], pa.int64(), mask=first == np.arange(len(rows)))
    _write(
        path, [pa.array(rows), pa.array(pool_keys, pa.string()), pa.array(tests, pa.string()), copy_of], COPIES_SCHEMA
    )


def _write(path: Path, columns: Sequence[pa.Array], schema: pa.Schema) -> None:
    table = pa.table([column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema)
    publish(path, lambda file: pq.write_table(table, file, compression="zstd"))


def load_selection(path: Path) -> pa.Table:
    """The table that `save_selection` wrote. Raises DataError when it cannot be read or is something else."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a selection ({error}); make it again") from error
    if not table.schema.equals(SCHEMA):
        raise DataError(f"{path}: not a selection, its columns are {table.schema.names}; make it again")
    return table


def statistics(selection: Selection, queries: int) -> dict[str, float]:
    """Statistics of a selection: images, queries, the depth reached, quantiles of the similarity, and how many images
    each query contributed (none if its best matches were all taken before)."""
    brought = np.bincount(selection.query, minlength=queries)
    similarity = {f"similarity_{name}": float(np.quantile(selection.similarity, q)) for name, q in QUANTILES.items()}
    return {
        "images": len(selection.rows),
        "queries": queries,
        "depth": selection.depth,
        **similarity,
        "images_per_query_min": int(brought.min()),
        "images_per_query_median": float(np.median(brought)),
        "images_per_query_max": int(brought.max()),
        "queries_without_images": int((brought == 0).sum()),
    }
