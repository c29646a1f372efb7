"""The few shots of the task, embedded as the pool is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sept import cost
from sept.data.images import ImageError, Pixels, decode
from sept.data.shots import draw
from sept.data.tasks import Example
from sept.errors import DataError
from sept.machine import Machine
from sept.stages.features import open_encoder
from sept.stages.task import open_task
from sept.store import Artefact

VECTORS, IDS = "queries.npy", "queries.parquet"


def read_image(example: Example) -> Pixels:
    """uint8 (H, W, 3) of a labelled image; DataError naming the file when it cannot be used."""
    try:
        return decode(example.path.read_bytes())
    except (ImageError, OSError) as error:
        raise DataError(f"{example.path}: {error}; replace or remove it: a labelled image is never skipped") from None


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
    vectors, failures = encoder(lambda place: read_image(shots[place]), range(len(shots)))
    assert not failures, "unreadable shots raise"
    np.save(folder / VECTORS, vectors.astype(np.float32), allow_pickle=False)
    pq.write_table(pa.table({"id": [shot.id for shot in shots]}), folder / IDS)
    return {"images": len(shots), "flops": len(shots) * cost.forward_flops(model, spec["preprocess"]["crop"])}


def load(artefact: Artefact) -> tuple[np.ndarray, list[str]]:
    """Query vectors (Q, D) float32 and the ids of their images."""
    vectors = np.load(artefact.path / VECTORS, allow_pickle=False)
    return vectors, pq.read_table(artefact.path / IDS)["id"].to_pylist()
