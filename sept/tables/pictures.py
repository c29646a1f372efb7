"""A look into a selection from what the store holds already: some queries and the pool images they brought.

Reads the packed selection and the task's images; searches nothing, and is empty where a part is not there.
"""

import base64
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from sept.config import Experiment
from sept.data.images import ImageError, Pixels
from sept.data.subset import Subset
from sept.errors import DataError, SeptError
from sept.pipeline import Pipeline
from sept.runtime.hardware import resolve
from sept.store import Artefact, Step, Store, check

QUERIES, CHOSEN = 4, 8  # strips of a selection, and images of each
SIDE = 72  # pixels, of every picture
JPEG_QUALITY = 85
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Strip:
    """A query, None where its image cannot be read or there is none, and images it brought with their similarity."""

    label: str
    query: Pixels | None
    chosen: tuple[tuple[Pixels, float | None], ...]


def strips(e: Experiment) -> list[Strip]:
    """Of an experiment that selects: queries spread evenly over those that brought images, or the first images.

    None, with a warning, where what they are read from is damaged: the numbers are in the manifests.
    """
    try:
        return _strips(e)
    except DataError as error:
        log.warning("no pictures: %s", error)
        return []


def _strips(e: Experiment) -> list[Strip]:
    pipeline = Pipeline(e, resolve(e.hardware))
    backbone = pipeline.initial_weights
    packed = backbone.inputs.get("subset") if backbone else None
    if packed is None:
        return []
    store, chosen = Store(e.store.root, mode="read-only"), packed.inputs["selection"]
    subset, selection = store.find(packed), store.find(chosen)
    if subset is None or selection is None:
        return []
    check(subset, packed.by_part)
    check(selection)
    images = Subset.open(subset.path)
    brought, similarity = _brought(selection.path)
    if not brought:
        return [
            Strip("the first images", None, tuple((images.image(i), None) for i in range(min(CHOSEN, len(images)))))
        ]
    labels = list(brought)
    picked = [labels[i] for i in np.linspace(0, len(labels) - 1, min(QUERIES, len(labels))).astype(int)]
    looks = _looks(pipeline, chosen, store, picked)
    return [
        Strip(label, looks.get(label), tuple((images.image(i), similarity[i]) for i in brought[label][:CHOSEN]))
        for label in picked
    ]


def _brought(folder: Path) -> tuple[dict[str, list[int]], list[float | None]]:
    """Places in the selection by the query that brought them, and all similarities; nothing without queries."""
    from sept.retrieval.selections import SELECTION

    table = pq.read_table(folder / SELECTION, columns=["query", "similarity"])
    brought: dict[str, list[int]] = {}
    for place, query in enumerate(table["query"].to_pylist()):
        if query is not None:
            brought.setdefault(query, []).append(place)
    return brought, table["similarity"].to_pylist()


def _looks(pipeline: Pipeline, chosen: Step, store: Store, labels: Sequence[str]) -> dict[str, Pixels]:
    """The images of these queries, those that can be read."""
    from sept.stages import queries as query_stage
    from sept.stages.task import locate

    asked = chosen.inputs["queries"]
    assert isinstance(asked.spec, query_stage.QueriesSpec)
    task: Artefact | None = store.find(asked.inputs["task"])
    if task is None:
        return {}
    try:
        ids, _, read, _ = query_stage.images(task, locate(pipeline.e.task), asked.spec)
        return {label: read(ids.index(label)) for label in labels if label in ids}
    except (SeptError, ImageError, OSError):  # the task is not on this machine any more
        return {}


def picture(image: Pixels) -> str:
    """The image, whole, as the source of an `<img>`: at most SIDE pixels a side."""
    small = Image.fromarray(image)
    scale = SIDE / max(small.size)
    small = small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale))))
    jpeg = io.BytesIO()
    small.save(jpeg, format="JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
