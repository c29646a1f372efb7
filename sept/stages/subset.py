"""The selected images in a compact local form that training reads hundreds of times."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sept.data.images import Pixels
from sept.data.locate import Location
from sept.data.subset import write_subset
from sept.retrieval.selections import SELECTION, load_selection
from sept.runtime.progress import progress
from sept.stages import VERSIONS
from sept.stages.numbered import number_inputs
from sept.stages.pool import open_pool
from sept.store.step import Artefact, Step

SHAPE = 4 / 3  # of a photograph, for estimates


@dataclass(frozen=True)
class SubsetSpec:
    """side: pixels of the shorter side, of a smaller image its own."""

    side: int


def step(selection: Step, pools: Sequence[Step], locations: Sequence[Location], side: int) -> Step:
    images = selection.estimate["images"]
    return Step(
        "subset",
        VERSIONS["subset"],
        SubsetSpec(side),
        {"selection": selection, **number_inputs("pool", pools)},
        partial(build, side=side, locations=locations),
        slug=selection.slug,
        estimate={"images": images, "bytes": images * 3 * side**2 * SHAPE},
        by_part=("pixels.bin",),
    )


def build(folder: Path, inputs: Mapping[str, Artefact], *, side: int, locations: Sequence[Location]) -> dict[str, Any]:
    pool = open_pool(inputs, locations)
    rows = load_selection(inputs["selection"].path / SELECTION)["row"].to_pylist()
    with progress("copy the selection", len(rows)) as advance:

        def images() -> Iterator[tuple[int, Pixels]]:
            for row in rows:
                yield row, pool.image(row, side)
                advance(1)

        return write_subset(folder, images(), side)
