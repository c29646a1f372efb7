"""The queries: the task's few shots or their annotated boxes, embedded like the pool."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sept.data.images import Pixels
from sept.data.locate import Location
from sept.data.settings import DETECTION_TASKS, SEGMENTATION_TASKS, Shot
from sept.retrievers import settings
from sept.retrievers.settings import Preprocess
from sept.runtime.hardware import Runtime
from sept.stages import VERSIONS
from sept.stages import task as task_stage
from sept.stages.inputs import backbone_of, library_of, open_encoder
from sept.store.step import Artefact, Step

if TYPE_CHECKING:
    from sept.config import Experiment

VECTORS, IDS = "queries.npy", "queries.parquet"


@dataclass(frozen=True)
class QueriesSpec:
    """images: number drawn from a task with boxes or masks; null for one with classes, which uses `shot`."""

    feature: str
    preprocess: Preprocess
    precision: str
    query: str
    shot: Shot
    shot_seed: int
    images: int | None


def step(e: "Experiment", task: Step, retriever: Step, runtime: Runtime) -> Step:
    t, r = e.task, e.retriever
    drawn = t.images if t.kind in (*DETECTION_TASKS, *SEGMENTATION_TASKS) else None
    preprocess = r.resolved_preprocess()
    spec = QueriesSpec(r.feature, preprocess, runtime.precision, e.query.name, e.shot, e.seed, drawn)
    images = task_stage.shots(t, e.shot, e.query, e.seed, task)
    return Step(
        "queries",
        VERSIONS["queries"],
        spec,
        {"retriever": retriever, "task": task},
        partial(build, spec=spec, location=task_stage.locate(t), runtime=runtime, batch_size=r.batch_size),
        slug=f"{t.name}-{r.name}-seed{e.seed}",
        estimate={"images": images, "flops": images * settings.flops(r.library, r.backbone, preprocess.crop)},
    )


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    *,
    spec: QueriesSpec,
    location: Location,
    runtime: Runtime,
    batch_size: int,
) -> dict[str, Any]:
    ids, classes, read, preprocess = images(inputs["task"], location, spec)
    encoder = open_encoder(inputs["retriever"], spec.feature, preprocess, runtime, batch_size, spec.precision)
    vectors, failures = encoder(read, range(len(ids)))
    assert not failures, "unreadable shots raise"
    np.save(folder / VECTORS, vectors.astype(np.float32), allow_pickle=False)
    pq.write_table(pa.table({"id": ids, "class": classes}), folder / IDS)
    made = inputs["retriever"]
    flops = len(ids) * settings.flops(library_of(made), backbone_of(made), preprocess.crop)
    return {"images": len(ids), "flops": flops}


def images(
    task: Artefact, location: Location, spec: QueriesSpec
) -> tuple[list[str], list[str], Callable[[int], Pixels], Preprocess]:
    """Ids and classes of the queries, a reader by index, and the preprocessing before the encoder.

    A box is resized straight to the encoder's size ("a fixed size", SEPT), without the crop that whole images get.
    """
    from sept.data.labelled import InstanceReader, reader

    preprocess = spec.preprocess
    if spec.images is None:
        shots = task_stage.few_shots(task, location, spec.shot, spec.shot_seed)
        names = [task.facts["classes"][shot.label] for shot in shots]
        return [shot.id for shot in shots], names, reader(shots, preprocess.resize), preprocess
    if spec.query == "instance":
        from sept.data.detection.boxes import instances

        annotated = task_stage.drawn_images(task, location, spec.images, spec.shot_seed)
        boxes = instances(annotated)
        straight = replace(preprocess, resize=preprocess.crop, squash=True)
        labels = {image.id: image.labels for image in annotated}
        names = [task.facts["classes"][labels[i][int(k)]] for i, _, k in (box.id.rpartition("#") for box in boxes)]
        return [box.id for box in boxes], names, InstanceReader(boxes, preprocess.crop), straight
    whole = task_stage.drawn_examples(task, location, spec.images, spec.shot_seed)
    return [image.id for image in whole], [""] * len(whole), reader(whole, preprocess.resize), preprocess


def load(artefact: Artefact) -> tuple[np.ndarray, list[str], list[str]]:
    """Query vectors (Q, D) float32, ids of their images or boxes, and their classes ("" for whole images of boxes)."""
    vectors = np.load(artefact.path / VECTORS, allow_pickle=False)
    table = pq.read_table(artefact.path / IDS)
    return vectors, table["id"].to_pylist(), table["class"].to_pylist()
