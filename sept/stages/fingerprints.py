"""Thumbnails of a task's test images, to recognise copies of them among the images of a pool."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sept.data.locate import Location
from sept.retrieval.fingerprints import THUMBNAIL
from sept.runtime.hardware import Runtime
from sept.runtime.progress import progress
from sept.runtime.threads import in_order
from sept.stages import VERSIONS
from sept.stages.task import test_images
from sept.store.step import Artefact, Step


@dataclass(frozen=True)
class FingerprintsSpec:
    """side: pixels of a thumbnail."""

    side: int


def step(task: Step, location: Location, runtime: Runtime) -> Step:
    return Step(
        "fingerprints",
        VERSIONS["fingerprints"],
        FingerprintsSpec(THUMBNAIL),
        {"task": task},
        partial(build, location=location, runtime=runtime),
        slug=task.slug,
    )


def build(folder: Path, inputs: Mapping[str, Artefact], *, location: Location, runtime: Runtime) -> dict[str, Any]:
    from sept.data.labelled import read_image
    from sept.retrieval.copies import write_tests
    from sept.retrieval.fingerprints import thumbnail

    tests = test_images(inputs["task"], location)
    with progress("fingerprint the test images", len(tests)) as advance:

        def told() -> Any:
            for record in in_order(lambda test: thumbnail(read_image(test, THUMBNAIL)), tests, runtime.threads):
                yield record
                advance(1)

        write_tests(folder, [test.id for test in tests], told())
    return {"images": len(tests)}
