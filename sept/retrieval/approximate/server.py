"""All calls to Milvus: connecting, creating a collection and its index, inserting rows, searching.

The only file that uses pymilvus, an extra. Tested with Milvus Lite; the calls are those documented for clusters.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from sept.errors import ConfigError, DataError, StorageError
from sept.retrieval.features import IntArray

CONNECT_S, REQUEST_S, POLL_S = 5.0, 600.0, 1.0
TOP_MOST = 16_384  # rows a cluster returns to one query of one request; Lite would return more
PROBES_MOST = 65_536  # more are refused, and no index has more cells
HITS_PER_REQUEST = 250_000  # some 10 MB
LITE_SEGMENT_BYTES, SEGMENT_BYTES = 128 * 2**20, 2**30  # of vectors; both are the default settings
INDEX_TYPES = ("IVF_SQ8", "IVF_FLAT", "FLAT")  # the first that the server knows
ROW, VECTOR, STRONG = "row", "vector", "Strong"
LITE = "milvus.db"


@contextmanager
def connected(folder: Path, uri: str | None) -> Iterator[Any]:
    """A client of the cluster at `uri`, or of Milvus Lite in the folder, which one process may have open at a time.

    Errors of Milvus inside become a StorageError that names the location. ConfigError without pymilvus.
    """
    try:
        from pymilvus import MilvusClient  # lazily: an extra
    except ImportError as error:
        raise ConfigError(
            f"index.name=milvus needs the extra `milvus`: pip install 'sept[milvus]' ({error})"
        ) from error
    for name in ("pymilvus", "milvus_lite", "grpc._server"):  # they log tracebacks of errors that they raise or handle
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _one_line(place(folder, uri)):
        client = MilvusClient(uri or str(folder / LITE), timeout=CONNECT_S)
        try:
            yield client
        finally:
            client.close()
            if uri is None:
                _stop_lite(folder / LITE)


def _stop_lite(path: Path) -> None:
    """Stops the embedded server, which closing its client does not: it holds the lock and unwritten files."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(path))


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Turns what pymilvus and gRPC raise into StorageError."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, RpcError) as error:
        raise StorageError(f"{where}: {' '.join(str(getattr(error, 'message', error)).split())}") from error


def place(folder: Path, uri: str | None) -> str:
    """Where the collection is, for error messages: without a password."""
    if uri is None:
        return f"Milvus Lite at {folder / LITE} (which one process at a time may open)"
    host = urlsplit(uri).netloc.rpartition("@")[2]
    return f"Milvus at index.uri={urlsplit(uri)._replace(netloc=host).geturl()} (null: Milvus Lite, in a file)"


def segment_rows(dim: int, uri: str | None) -> int:
    """Number of vectors per segment of the server."""
    return (LITE_SEGMENT_BYTES if uri is None else SEGMENT_BYTES) // (4 * dim)


def begin(client: Any, collection: str, dim: int, cells: int) -> None:
    """A loaded collection with its index: a cluster counts rows only when loaded, and builds the index as segments
    fill.

    Raises DataError if it exists with another dim.
    """
    from pymilvus import DataType

    if client.has_collection(collection, timeout=REQUEST_S):
        fields = {each["name"]: each for each in client.describe_collection(collection, timeout=REQUEST_S)["fields"]}
        found = int(fields.get(VECTOR, {}).get("params", {}).get("dim", 0))
        if found != dim:
            raise DataError(f"collection {collection!r} has vectors of {found} dimensions, the pool {dim}: drop it")
    else:
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ROW, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
        client.create_collection(collection, schema=schema, consistency_level=STRONG, timeout=REQUEST_S)
    if not client.list_indexes(collection):
        _create_index(client, collection, cells)
    client.load_collection(collection, timeout=REQUEST_S)


def _create_index(client: Any, collection: str, cells: int) -> None:
    from pymilvus.exceptions import MilvusException

    for kind in INDEX_TYPES:
        nested = {"params": {"nlist": cells}}  # Milvus Lite overlooks a plain nlist; clusters take both
        wanted = client.prepare_index_params()
        wanted.add_index(VECTOR, index_type=kind, metric_type="IP", params=nested if kind != "FLAT" else {})
        try:
            client.create_index(collection, wanted, timeout=REQUEST_S)
            return
        except MilvusException:  # this server has no such index
            if kind == INDEX_TYPES[-1]:
                raise


def put(client: Any, collection: str, rows: IntArray, vectors: np.ndarray, replace: bool) -> None:
    """Adds vectors (n, D) float32 under their rows (n,); with `replace` some may exist already."""
    data = [{ROW: row, VECTOR: vector} for row, vector in zip(rows.tolist(), vectors, strict=True)]
    (client.upsert if replace else client.insert)(collection, data, timeout=REQUEST_S)


def count(client: Any, collection: str, first: int | None = None, last: int | None = None) -> int:
    """How many rows of [first, last) the collection holds; of all without them."""
    within = "" if first is None else f"{ROW} >= {first} and {ROW} < {last}"
    answer = client.query(
        collection, filter=within, output_fields=["count(*)"], timeout=REQUEST_S, consistency_level=STRONG
    )
    return int(answer[0]["count(*)"])


def finish(client: Any, collection: str) -> str:
    """Waits until the index covers every row, and returns its kind."""
    client.flush(collection, timeout=REQUEST_S)
    client.release_collection(collection, timeout=REQUEST_S)
    client.load_collection(collection)  # Milvus Lite builds here, as long as it takes
    while True:
        index = client.describe_index(collection, VECTOR, timeout=REQUEST_S)
        if not index.get("pending_index_rows"):
            return str(index["index_type"])
        time.sleep(POLL_S)


def nearest(
    client: Any, collection: str, queries: np.ndarray, within: tuple[int, int] | None, limit: int, probes: int
) -> list[np.ndarray]:
    """For each query (row, score) pairs (n <= limit, 2) float64 of the rows in [*within), best first."""
    at_once = max(1, HITS_PER_REQUEST // limit)
    answers: list[Any] = []
    for start in range(0, len(queries), at_once):
        answers += client.search(
            collection,
            [*queries[start : start + at_once]],
            filter="" if within is None else f"{ROW} >= {within[0]} and {ROW} < {within[1]}",
            limit=limit,
            output_fields=[ROW],
            anns_field=VECTOR,
            search_params={"metric_type": "IP", "params": {"nprobe": probes}},
            timeout=REQUEST_S,
            consistency_level=STRONG,
        )
    return [np.array([(hit[ROW], hit["distance"]) for hit in answer]).reshape(-1, 2) for answer in answers]
