"""The selected images in a compact local form that training reads hundreds of times."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sept.data.images import Pixels
from sept.data.subset import write_subset
from sept.retrieval.select import load_selection
from sept.runtime.progress import progress
from sept.stages.pool import open_pool
from sept.stages.selection import SELECTION
from sept.store import Artefact


def build(
    folder: Path, inputs: Mapping[str, Artefact], spec: Mapping[str, Any], *, places: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    pool = open_pool(inputs, places)
    rows = load_selection(inputs["selection"].path / SELECTION)["row"].to_pylist()
    with progress("copy the selection", len(rows)) as advance:

        def images() -> Iterator[tuple[int, Pixels]]:
            for row in rows:
                yield row, pool.image(row, spec["side"])
                advance(1)

        return write_subset(folder, images(), spec["side"])
