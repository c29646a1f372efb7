"""Pictures of a selection from the store: some queries and the pool images they selected.

Reads the packed selection and the task's images; searches nothing, and is empty if a part is missing.
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

QUERIES, CHOSEN = 4, 8  # strips per selection, and images per strip
SIDE = 72  # pixels, of every picture
JPEG_QUALITY = 85
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Strip:
    """A query, None if it is missing or unreadable, and the images it selected with their similarity."""

    label: str
    query: Pixels | None
    chosen: tuple[tuple[Pixels, float | None], ...]


def strips(e: Experiment) -> list[Strip]:
    """For an experiment with a selection: queries spread evenly over those that selected images, or the first images.

    Empty, with a warning, if their sources are damaged: the numbers come from the manifests.
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
    store, chosen = Store(e.store.root, mode="read-only"), packed.inputs.get("selection")
    subset, selection = store.find(packed), store.find(chosen) if chosen else None
    if subset is None or (chosen and selection is None):
        return []
    check(subset, packed.by_part)
    images = Subset.open(subset.path)
    if selection is not None:
        check(selection)
    brought, similarity = _brought(selection.path, images.ids.tolist()) if selection is not None else ({}, [])
    if not brought or chosen is None:
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


def _brought(folder: Path, packed: Sequence[int]) -> tuple[dict[str, list[int]], list[float | None]]:
    """Positions of the packed rows by the query that selected them, and the similarity of each; empty without
    queries."""
    from sept.retrieval.selections import SELECTION

    table = pq.read_table(folder / SELECTION, columns=["row", "query", "similarity"])
    chosen = {row: rest for row, *rest in zip(*(column.to_pylist() for column in table.columns), strict=True)}
    found = [chosen.get(row, [None, None]) for row in packed]  # rows of a random subset may be in place of others
    brought: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(found):
        if query is not None:
            brought.setdefault(query, []).append(place)
    return brought, [similarity for _, similarity in found]


def _looks(pipeline: Pipeline, chosen: Step, store: Store, labels: Sequence[str]) -> dict[str, Pixels]:
    """The readable ones among the images of these queries."""
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
    except (SeptError, ImageError, OSError):  # the task is no longer on this machine
        return {}


def picture(image: Pixels) -> str:
    """The whole image as the source of an `<img>`: at most SIDE pixels per side."""
    small = Image.fromarray(image)
    scale = SIDE / max(small.size)
    small = small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale))))
    jpeg = io.BytesIO()
    small.save(jpeg, format="JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
