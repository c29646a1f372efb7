"""Which of the chosen images are copies of the task's test images or of each other: a report for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sept.retrieval.selections import COPIES, SELECTION, load_selection, save_copies
from sept.runtime.hardware import Runtime
from sept.stages import VERSIONS
from sept.store.step import Artefact, Step


@dataclass(frozen=True)
class CopiesSpec:
    """Without settings: the thresholds are the calibrated ones of `sept.retrieval.duplicates`."""


def step(selection: Step, subset: Step, fingerprints: Step, runtime: Runtime) -> Step:
    """subset: the packed selection, whose thumbnails are compared, so that no image is decoded here."""
    return Step(
        "copies",
        VERSIONS["copies"],
        CopiesSpec(),
        {"selection": selection, "subset": subset, "fingerprints": fingerprints},
        partial(build, runtime=runtime),
        slug=selection.slug,
        estimate={"images": selection.estimate["images"]},
    )


def build(folder: Path, inputs: Mapping[str, Artefact], *, runtime: Runtime) -> dict[str, Any]:
    from sept.data.subset import Subset
    from sept.retrieval.copies import first_alike, read_tests
    from sept.retrieval.fingerprints import Thumbnails

    chosen, table = Thumbnails.open(inputs["subset"].path), load_selection(inputs["selection"].path / SELECTION)
    rows = Subset.open(inputs["subset"].path).ids
    keys = dict(zip(table["row"].to_pylist(), table["pool_key"].to_pylist(), strict=True))
    packed = {*rows.tolist()}
    assert rows.tolist() == [row for row in keys if row in packed], "packed in its order, but for those left out"
    shown = read_tests(inputs["fingerprints"].path).shown_by(chosen, runtime.accelerator)
    first = first_alike(chosen, runtime.accelerator)
    save_copies(folder / COPIES, rows, [keys[row] for row in rows.tolist()], shown, first)
    again = None if first is None else int((first != range(len(rows))).sum())
    copied = sum(test is not None for test in shown)
    return {"images": len(rows), "copies_of_test_images": copied, "near_duplicates": again}
