"""The same kind of index in Milvus, the paper's vector database: embedded in the folder (Milvus Lite), or a cluster.

One collection, the pool row as primary key. Milvus makes cells per segment, not for the pool, so their number is chosen
for a segment, and the share of probes applies to every segment. IVF_SQ8 if the server supports it (clusters, and Milvus
Lite since 3), else IVF_FLAT, else FLAT; `facts` say which. Shapes: Q queries, D dim, q queries of one request.
"""

import json
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sept.errors import DataError
from sept.retrieval.approximate import Progress, cells, filled, identity, probed, readable, require_same, server
from sept.retrieval.features import Features, IntArray
from sept.retrieval.select import Ranked
from sept.retrieval.shards import publish

BATCH_BYTES = 16 * 2**20  # vectors of one insert; a cluster takes 64 MB
COLLECTION, DONE = "sept", "index.json"


def build(
    folder: Path,
    features: Features,
    nlist: int,
    uri: str | None = None,
    collection: str = COLLECTION,
    batch_bytes: int = BATCH_BYTES,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Builds the missing part of the index of all readable rows; returns {added, cells, index_type, server}.

    uri: of a cluster, such as http://host:19530 (with user:password@ before the host where it asks for one); None for
    Milvus Lite in `folder`. Rows are inserted in batches, in order, so that after a kill a rerun finds its position by
    a few counts. progress is called with the number of rows done. Raises StorageError when the server cannot be reached
    or refuses, ConfigError when pymilvus is missing, DataError when the collection has another dim or other rows than
    the pool.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = cells(nlist, min(features.embedded, server.segment_rows(features.dim, uri)))
    with server.connected(folder, uri) as client:
        server.begin(client, collection, features.dim, made)
        _add(client, collection, features, batch_bytes, progress)
        kind, version = server.finish(client, collection), str(client.get_server_version(timeout=server.REQUEST_S))
    facts = {"added": features.embedded, "cells": made, "index_type": kind, "server": version}
    done = {**identity(features, nlist=nlist, collection=collection), **facts}
    publish(folder / DONE, lambda file: file.write(json.dumps(done).encode()))
    return facts


def _add(client: Any, collection: str, features: Features, batch_bytes: int, progress: Progress | None) -> None:
    """Adds the batches from the first incomplete one on, which may exist in part; then counts all rows."""
    size = max(1, batch_bytes // (4 * features.dim))
    starts = range(0, features.rows, size)

    def missing(start: int) -> bool:
        last = min(start + size, features.rows)
        return server.count(client, collection, start, last) < len(readable(features, start, last))

    begun = server.count(client, collection) > 0
    complete = bisect_left(starts, True, key=missing) if begun else 0
    for batch, start in enumerate(starts[complete:]):
        last = min(start + size, features.rows)
        rows = readable(features, start, last)
        if len(rows):
            server.put(client, collection, rows, features.take(rows), replace=begun and batch == 0)
        if progress is not None:
            progress(last)
    held = server.count(client, collection)
    if held != features.embedded:
        raise DataError(f"collection {collection!r} holds {held:,} rows, the pool {features.embedded:,}: drop it")


@dataclass
class Milvus:
    """A collection that `build` finished (`done` is what it wrote), probing `probes` cells of a segment first.
    `most_probed`: at most so far."""

    client: Any
    features: Features
    done: dict[str, Any]
    probes: int
    most_probed: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """Kind of index and server, cells of a segment, how many a query probed at first and at most."""
        return {
            "index": "milvus",
            "index_type": self.done["index_type"],
            "index_server": self.done["server"],
            "index_cells": self.done["cells"],
            "index_probes": self.probes,
            "index_probes_most": self.most_probed,
        }

    def search(self, queries: np.ndarray, depth: int) -> Ranked:
        """Ranked lists of `depth`, of all readable rows if the pool holds fewer. Raises DataError, ConfigError."""
        ranked, probes = filled(self._fetch, queries, self.features, depth, self.probes, self.done["cells"])
        self.most_probed = max(self.most_probed, probes)
        return ranked

    def _fetch(self, queries: np.ndarray, wanted: int, probes: int) -> IntArray:
        """Rows (q, wanted) of the probed cells with the best 8-bit scores; -1 where they hold no more.

        Beyond Milvus' limit per request, the pool is split into row ranges, each queried for its best. A range that
        returned the maximum, all above the wanted-th best so far, may hold more: its halves are queried.
        """
        found = [np.empty((0, 2)) for _ in queries]  # (row, score) pairs of each; float64 holds rows exactly
        edges = np.linspace(0, self.features.rows, 1 + _ranges(wanted)).astype(int).tolist()
        asked = [(first, last, np.arange(len(queries))) for first, last in pairwise(edges)]
        while asked:
            lowest = [self._ask(found, queries, wanted, probes, *each) for each in asked]
            halves = []
            for (first, last, _), ends in zip(asked, lowest, strict=True):
                more = [query for query, end in ends.items() if end >= _cut(found[query], wanted)]
                middle = (first + last) // 2
                halves += [(first, middle, np.array(more)), (middle, last, np.array(more))] if more else []
            asked = halves
        rows = np.full((len(queries), wanted), -1, dtype=np.int64)
        for query, pairs in enumerate(found):
            best = np.lexsort((pairs[:, 0], -pairs[:, 1]))[:wanted]
            rows[query, : len(best)] = pairs[best, 0]
        return rows

    def _ask(
        self,
        found: list[np.ndarray],
        queries: np.ndarray,
        wanted: int,
        probes: int,
        first: int,
        last: int,
        some: IntArray,
    ) -> dict[int, float]:
        """Adds to `found` the best rows of [first, last) for `some` of the queries; {query: lowest score} of those that
        got as many as Milvus returns, fewer than were wanted of that range."""
        limit = min(wanted, server.TOP_MOST, last - first)
        within = None if last - first == self.features.rows else (first, last)
        probes = server.PROBES_MOST if probes >= self.done["cells"] else probes  # whatever the server made
        hits = server.nearest(self.client, self.done["collection"], queries[some], within, limit, probes)
        ends = {}
        for query, pairs in zip(some.tolist(), hits, strict=True):
            found[query] = _union(found[query], pairs)
            if len(pairs) == limit < min(wanted, last - first):
                ends[query] = float(pairs[-1, 1])
        return ends


@contextmanager
def open_milvus(folder: Path, features: Features, nprobe: int, uri: str | None = None) -> Iterator[Milvus]:
    """The index that `build` finished; uri as there. nprobe refers to the requested nlist, and is scaled with it.

    Raises DataError when it is unfinished, of other features, or gone from the server; StorageError when that cannot be
    reached, or fails within; ConfigError for a wrong nprobe.
    """
    try:
        done = json.loads((folder / DONE).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / DONE}: not a finished index ({error}); build it again") from error
    require_same(folder / DONE, done, identity(features))
    probes, collection = probed(nprobe, done["nlist"], done["cells"]), done["collection"]
    with server.connected(folder, uri) as client:
        if not client.has_collection(collection, timeout=server.REQUEST_S):
            where = server.place(folder, uri)
            raise DataError(f"{where} has no collection {collection!r}: delete {folder} and build it again")
        client.load_collection(collection, timeout=server.REQUEST_S)
        yield Milvus(client, features, done, probes)


def _ranges(wanted: int) -> int:
    """Number of initial ranges of the pool: each should hold half of what one request returns."""
    return 1 if wanted <= server.TOP_MOST else -(-2 * wanted // server.TOP_MOST)


def _union(found: np.ndarray, more: np.ndarray) -> np.ndarray:
    """(row, score) pairs of both, each row once."""
    both = np.concatenate([found, more])
    return both[np.unique(both[:, 0], return_index=True)[1]]


def _cut(found: np.ndarray, wanted: int) -> float:
    """The wanted-th best score, below which no row matters; minus infinity while there are fewer."""
    return float(-np.partition(-found[:, 1], wanted - 1)[wanted - 1]) if len(found) >= wanted else -np.inf
