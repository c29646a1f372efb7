"""The paper's kind of index in faiss: k-means cells of 8-bit codes; each query searches the nearest few.

The trained index (cells and code ranges, no vectors) is one file, then every million pool rows are one more: a kill
costs one part, memory holds one part, and a GPU need not hold them all. A search looks up the cells once and merges the
best of all parts, like one big index. SEPT's are Milvus' defaults: 16,384 cells, 256 probed. Shapes: Q queries, D dim,
n rows of one block.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sept.data.rng import fold
from sept.errors import DataError
from sept.retrieval.approximate import (
    TRAINING_PER_CELL,
    Progress,
    cells,
    filled,
    identity,
    probed,
    readable,
    require_same,
)
from sept.retrieval.features import Features, IntArray
from sept.retrieval.select import Ranked, random_subset
from sept.retrieval.shards import publish

PART_ROWS = 1_000_000  # 776 MB a part at 768 dimensions
BLOCK_ROWS = 8192
GPU_MOST = 2048  # faiss's GPU search finds no more rows, and probes no more cells
SEED_BITS = 31  # faiss takes an int

PLAN, TRAINED, DONE = "plan.json", "trained.faiss", "index.json"


def build(
    folder: Path,
    features: Features,
    nlist: int,
    seed: int,
    device: str = "cpu",
    part_rows: int = PART_ROWS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Builds the missing parts of the index of all readable rows; returns {added, cells, parts, trained_on}.

    The cells are nlist, fewer where the pool has less than 39 vectors for each; they depend on the seed alone. progress
    is called with the number of rows done. Raises DataError if the folder was begun with other features or settings,
    StorageError for disk errors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = cells(nlist, features.embedded)
    plan = identity(features, nlist=nlist, cells=made, seed=seed, part_rows=part_rows)
    if (folder / PLAN).exists():
        require_same(folder / PLAN, _read_json(folder / PLAN), plan)
    publish(folder / PLAN, lambda file: file.write(json.dumps(plan).encode()))
    trained_on = min(made * TRAINING_PER_CELL, features.embedded)
    if not (folder / TRAINED).exists():
        _save(_train(features, made, trained_on, seed, device), folder / TRAINED)
    starts = range(0, features.rows, part_rows)
    for number, first in enumerate(starts):
        last = min(first + part_rows, features.rows)
        if not _part(folder, number).exists():
            _save(_filled_part(folder, features, first, last, device), _part(folder, number))
        if progress is not None:
            progress(last)
    facts = {"added": features.embedded, "cells": made, "parts": len(starts), "trained_on": trained_on}
    publish(folder / DONE, lambda file: file.write(json.dumps({**plan, **facts}).encode()))
    return facts


@dataclass
class IvfSq8:
    """An index that `build` finished, probing `probes` of its `made` cells first. `most_probed`: at most so far."""

    folder: Path
    features: Features
    probes: int
    made: int
    parts: int
    device: str = "cpu"
    most_probed: int = 0
    on_gpu: bool = field(default=False, init=False)

    @property
    def facts(self) -> dict[str, Any]:
        """Cells, how many a query probed at first and at most, and whether a GPU did the last search."""
        return {
            "index": "ivf_sq8",
            "index_cells": self.made,
            "index_probes": self.probes,
            "index_probes_most": self.most_probed,
            "index_on_gpu": self.on_gpu,
        }

    def search(self, queries: np.ndarray, depth: int) -> Ranked:
        """Ranked lists of `depth`, of all readable rows if the pool holds fewer. Raises DataError, ConfigError."""
        ranked, probes = filled(self._fetch, queries, self.features, depth, self.probes, self.made)
        self.most_probed = max(self.most_probed, probes)
        return ranked

    def _fetch(self, queries: np.ndarray, wanted: int, probes: int) -> IntArray:
        """Rows (q, wanted) of the probed cells with the best 8-bit scores, in no order; -1 where they hold no more."""
        self.on_gpu = _gpus(self.device) and max(wanted, probes) <= GPU_MOST
        vectors = np.ascontiguousarray(queries, dtype=np.float32)
        trained = _load(self.folder / TRAINED)  # kept referenced: it owns the quantizer
        near, near_scores = (None, None) if self.on_gpu else trained.quantizer.search(vectors, probes)[::-1]
        rows = np.full((len(queries), wanted), -1, dtype=np.int64)
        scores = np.full((len(queries), wanted), -np.inf, dtype=np.float32)
        for number in range(self.parts):
            part = _load(_part(self.folder, number))
            if near is None:
                part = _to_gpu(part)
                part.nprobe = probes
                more_scores, more = part.search(vectors, wanted)
            else:
                part.nprobe = probes
                more_scores, more = part.search_preassigned(vectors, wanted, near, near_scores)
            rows, scores = _best(np.hstack([rows, more]), np.hstack([scores, more_scores]), wanted)
        return rows


def open_ivf(folder: Path, features: Features, nprobe: int, device: str = "cpu") -> IvfSq8:
    """The index that `build` finished in `folder`; nprobe refers to the requested nlist, and is scaled with it.

    Raises DataError when it is unfinished or was built of other features, ConfigError for a wrong nprobe.
    """
    done = _read_json(folder / DONE)
    require_same(folder / DONE, done, identity(features))
    return IvfSq8(folder, features, probed(nprobe, done["nlist"], done["cells"]), done["cells"], done["parts"], device)


def _train(features: Features, made: int, trained_on: int, seed: int, device: str) -> Any:
    """An index without vectors: cells by k-means of a random sample, code ranges by its extremes."""
    faiss = _faiss()
    quantizer = faiss.IndexFlatIP(features.dim)
    kind, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFScalarQuantizer(quantizer, features.dim, made, kind, metric)
    index.cp.seed = fold(seed, "ivf k-means") >> (63 - SEED_BITS)
    rows = readable(features, 0, features.rows)
    sample = np.sort(rows[random_subset(len(rows), trained_on, fold(seed, "ivf sample"))])
    on_gpu = _to_gpu(faiss.IndexFlatIP(features.dim)) if _gpus(device) else None  # kept referenced: faiss borrows it
    index.clustering_index = on_gpu
    index.train(features.take(sample))
    index.clustering_index = None
    return index


def _filled_part(folder: Path, features: Features, first: int, last: int, device: str) -> Any:
    """The trained index with the readable rows of [first, last)."""
    from faiss.contrib.ivf_tools import add_preassigned

    part = _load(folder / TRAINED)
    quantizer = _to_gpu(part.quantizer) if _gpus(device) else part.quantizer
    for start in range(first, last, BLOCK_ROWS):
        rows = readable(features, start, min(start + BLOCK_ROWS, last))
        if len(rows):
            vectors = features.take(rows)
            add_preassigned(part, vectors, quantizer.search(vectors, 1)[1][:, 0].copy(), rows)
    return part


def _best(rows: IntArray, scores: np.ndarray, wanted: int) -> tuple[IntArray, np.ndarray]:
    """The `wanted` best of (q, m > wanted) rows; -1 is worse than any row."""
    order = np.argpartition(np.where(rows < 0, np.inf, -scores), wanted - 1)[:, :wanted]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def _faiss() -> Any:
    import faiss  # lazily: an exact search does not need it

    faiss.omp_set_num_threads(torch.get_num_threads())  # its own OpenMP knows nothing of torch's setting
    return faiss


def _gpus(device: str) -> bool:
    """Whether faiss can use a GPU when asked to: its CPU build cannot."""
    return torch.device(device).type == "cuda" and getattr(_faiss(), "get_num_gpus", int)() > 0


def _to_gpu(index: Any) -> Any:
    faiss = _faiss()
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.faiss"


def _save(index: Any, path: Path) -> None:
    def write(file: Any) -> None:
        try:
            _faiss().write_index(index, file.name)  # into the same file, which is then synced and renamed
        except RuntimeError as error:
            raise OSError(f"faiss: {error}") from error

    publish(path, write)


def _load(path: Path) -> Any:
    """An index whose vectors, if any, are memory-mapped."""
    faiss = _faiss()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if path.name != TRAINED else 0)
    except RuntimeError as error:
        raise DataError(f"{path}: faiss cannot read it ({error}); delete {path.parent} and build it again") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a finished index ({error}); build it again") from error
    assert isinstance(found, dict), f"{path} holds no object"
    return found
