"""The few shots of the task, embedded as the pool is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sept import cost
from sept.data.labelled import reader
from sept.data.shots import draw
from sept.machine import Machine
from sept.stages.features import open_encoder
from sept.stages.task import open_task
from sept.store import Artefact

VECTORS, IDS = "queries.npy", "queries.parquet"


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    *,
    machine: Machine,
    path: str | None,
    batch_size: int,
) -> dict[str, Any]:
    task = open_task(inputs["task"], path)
    shots = draw(task.train, spec["shot"]["per_class"], spec["shot_seed"], task.classes)
    encoder, model = open_encoder(inputs["retriever"], spec["preprocess"], machine, batch_size)
    vectors, failures = encoder(reader(shots), range(len(shots)))
    assert not failures, "unreadable shots raise"
    np.save(folder / VECTORS, vectors.astype(np.float32), allow_pickle=False)
    pq.write_table(pa.table({"id": [shot.id for shot in shots]}), folder / IDS)
    return {"images": len(shots), "flops": len(shots) * cost.forward_flops(model, spec["preprocess"]["crop"])}


def load(artefact: Artefact) -> tuple[np.ndarray, list[str]]:
    """Query vectors (Q, D) float32 and the ids of their images."""
    vectors = np.load(artefact.path / VECTORS, allow_pickle=False)
    return vectors, pq.read_table(artefact.path / IDS)["id"].to_pylist()
