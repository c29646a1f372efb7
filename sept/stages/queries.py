"""What of the task is looked up in the pool: its few shots or their annotated boxes, embedded as the pool is."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sept import cost
from sept.config import Preprocess
from sept.data.detection.boxes import instances
from sept.data.images import Pixels
from sept.data.labelled import InstanceReader, reader
from sept.runtime.hardware import Runtime
from sept.stages.features import open_encoder
from sept.stages.task import drawn_examples, drawn_images, few_shots
from sept.store import Artefact

VECTORS, IDS = "queries.npy", "queries.parquet"


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    *,
    runtime: Runtime,
    place: Mapping[str, Any],
    batch_size: int,
) -> dict[str, Any]:
    ids, classes, read, preprocess = images(inputs["task"], place, spec)
    encoder, model = open_encoder(inputs["retriever"], preprocess, runtime, batch_size, spec["precision"])
    vectors, failures = encoder(read, range(len(ids)))
    assert not failures, "unreadable shots raise"
    np.save(folder / VECTORS, vectors.astype(np.float32), allow_pickle=False)
    pq.write_table(pa.table({"id": ids, "class": classes}), folder / IDS)
    return {"images": len(ids), "flops": len(ids) * cost.forward_flops(model, preprocess.crop)}


def images(
    task: Artefact, place: Mapping[str, Any], spec: Mapping[str, Any]
) -> tuple[list[str], list[str], Callable[[int], Pixels], Preprocess]:
    """Ids and classes of the queries, a reader of each by its number, and what it goes through before the encoder.

    A box is resized straight to the encoder's size ("a fixed size", SEPT), without the crop that whole images get.
    """
    preprocess = Preprocess(**spec["preprocess"])
    if "images" not in spec:
        shots = few_shots(task, place, spec["shot"], spec["shot_seed"])
        names = [task.facts["classes"][shot.label] for shot in shots]
        return [shot.id for shot in shots], names, reader(shots, preprocess.resize), preprocess
    if spec["query"] == "instance":
        annotated = drawn_images(task, place, spec["images"], spec["shot_seed"])
        boxes = instances(annotated)
        straight = replace(preprocess, resize=preprocess.crop, squash=True)
        labels = {image.id: image.labels for image in annotated}
        names = [task.facts["classes"][labels[i][int(k)]] for i, _, k in (box.id.rpartition("#") for box in boxes)]
        return [box.id for box in boxes], names, InstanceReader(boxes, preprocess.crop), straight
    whole = drawn_examples(task, place, spec["images"], spec["shot_seed"])
    return [image.id for image in whole], [""] * len(whole), reader(whole, preprocess.resize), preprocess


def load(artefact: Artefact) -> tuple[np.ndarray, list[str], list[str]]:
    """Query vectors (Q, D) float32, ids of their images or boxes, and their classes ("" for whole images of boxes)."""
    vectors = np.load(artefact.path / VECTORS, allow_pickle=False)
    table = pq.read_table(artefact.path / IDS)
    return vectors, table["id"].to_pylist(), table["class"].to_pylist()
