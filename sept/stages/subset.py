"""The selected images in a compact local form that training reads hundreds of times, and a thumbnail of each; and the
task's own training images in the same form.

Each image is decoded here once, by several threads. In a random subset images that cannot be decoded are replaced by
the next ones in the random order.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sept.data.annotations import write_vectors
from sept.data.images import ImageError, Pixels
from sept.data.locate import Location
from sept.data.pool import ConcatPool
from sept.data.settings import Pool as PoolSettings
from sept.data.subset import shrink, write_subset
from sept.errors import DataError
from sept.methods.recipe import POOL_FEATURES
from sept.retrieval.embedding import check_readable
from sept.retrieval.features import Features
from sept.retrieval.fingerprints import FILE, Thumbnails, thumbnail
from sept.retrieval.selections import SELECTION, load_selection
from sept.retrieval.shards import Skip
from sept.runtime.hardware import Runtime
from sept.runtime.progress import progress
from sept.runtime.threads import in_order
from sept.stages import VERSIONS
from sept.stages import task as task_stage
from sept.stages.draws import Draw, RandomSpec, SourceSpec, draws
from sept.stages.index import join_features
from sept.stages.inputs import number_inputs
from sept.stages.pool import describe_skips, open_pool, skipped
from sept.store.step import Artefact, Step

if TYPE_CHECKING:
    from sept.config import Experiment
    from sept.stages.annotations import Annotation

SHAPE = 4 / 3  # aspect ratio of a photograph, for estimates
AT_ONCE = 256  # images of the task held in memory while they are compared with the test images
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubsetSpec:
    """side: pixels of the shorter side; smaller images are not enlarged."""

    side: int


@dataclass(frozen=True)
class AnnotatedSpec:
    """side: as in SubsetSpec. annotation: what the images are packed with."""

    side: int
    annotation: "Annotation"


@dataclass(frozen=True)
class TaskImagesSpec:
    """side: pixels of the shorter side. leak: `remove` to leave out copies of test images."""

    side: int
    leak: str


def step(
    selection: Step,
    pools: Sequence[Step],
    locations: Sequence[Location],
    side: int,
    p: PoolSettings,
    reads: str | None,
    runtime: Runtime,
    features: Sequence[Step] = (),
) -> Step:
    """reads: what the images are packed with for the method that is trained on them: labels, captions, the retriever's
    features or nothing. features: of the pools, for the third.

    In a selection by similarity no image may be unreadable, since all have been decoded for embedding.
    """
    images, annotation, told = selection.estimate["images"], None, ""
    if reads == POOL_FEATURES:
        told = "subset: with the retriever's vectors of its images"
    elif reads is not None:
        from sept.stages.annotations import annotation_of

        annotation = annotation_of(p, reads)
        told = f"subset: with the {annotation.told} of its images"
    return Step(
        "subset",
        VERSIONS["subset"],
        SubsetSpec(side) if annotation is None else AnnotatedSpec(side, annotation),
        {"selection": selection, **number_inputs("pool", pools), **number_inputs("features", features)},
        partial(
            build,
            side=side,
            locations=locations,
            find_draws=partial(draws, selection.spec),
            max_unreadable=p.max_unreadable if isinstance(selection.spec, RandomSpec | SourceSpec) else None,
            threads=runtime.threads,
            annotation=annotation,
            max_unannotated=p.max_unannotated,
        ),
        slug=selection.slug,
        estimate={"images": images, "bytes": images * 3 * side**2 * SHAPE},
        by_part=("pixels.bin",),
        about=told,
    )


def build(
    folder: Path,
    inputs: Mapping[str, Artefact],
    *,
    side: int,
    locations: Sequence[Location],
    find_draws: Callable[[ConcatPool], list[Draw] | None],
    max_unreadable: float | None,
    threads: int,
    annotation: "Annotation | None" = None,
    max_unannotated: float = 0.0,
) -> dict[str, Any]:
    pool = open_pool(inputs, locations)
    rows = load_selection(inputs["selection"].path / SELECTION)["row"].to_numpy()
    source, annotated = _Source(pool, side, max_unreadable, threads), None
    if annotation is not None:
        from sept.stages.annotations import Annotated

        annotated = Annotated(annotation, pool, inputs, locations, max_unannotated, threads)
        annotated.look_up(rows.tolist())  # before the images are decoded, which takes longer
    packed: list[int] = []
    with open(folder / FILE, "wb") as kept, progress("copy the selection", len(rows)) as advance:

        def images() -> Iterator[tuple[int, Pixels]]:
            for seen in source.all_of(rows, find_draws(pool)):
                if annotated is None or annotated.take(seen.row):
                    packed.append(seen.row)
                    kept.write(seen.thumbnail.tobytes())
                    yield seen.row, seen.pixels
                advance(1)

        facts = write_subset(folder, images(), side)
    facts |= annotated.write(folder) if annotated is not None else {}
    if "features0" in inputs:
        _pack_vectors(folder, join_features(inputs), packed, pool)
    return {**facts, "skipped": len(source.skips), "unreadable": describe_skips(source.skips)}


def _pack_vectors(folder: Path, features: Features, rows: Sequence[int], pool: ConcatPool) -> None:
    """Raises DataError for an image that has none."""
    blind = np.intersect1d(rows, features.skipped)
    if len(blind):
        raise DataError(
            f"pool image {pool.key(int(blind[0]))} has no vector: it could not be read when the pool was embedded; "
            "embed again with store.force=[features]"
        )
    wanted = np.asarray(rows, np.int64)
    write_vectors(folder, len(wanted), features.dim, lambda part: features.take(wanted[part]))


class _Seen(NamedTuple):
    """An image as packed, and its thumbnail."""

    row: int
    pixels: Pixels
    thumbnail: np.ndarray


@dataclass
class _Source:
    """Decodes rows of a pool; `skips` are the failures so far."""

    pool: ConcatPool
    side: int
    max_unreadable: float | None
    threads: int
    skips: list[Skip] = field(default_factory=list)

    def all_of(self, rows: np.ndarray, parts: Sequence[Draw] | None) -> Iterator[_Seen]:
        """The rows, with replacements for those that cannot be decoded; parts: what each was drawn from."""
        if parts is None:
            yield from self._readable(rows.tolist())
            return
        for part in parts:
            mine, rows = rows[: part.wanted], rows[part.wanted :]
            seen, missing = 0, part.wanted
            while missing:
                for image in self._readable(mine.tolist()):
                    yield image
                    missing -= 1
                seen += len(mine)
                if missing:
                    mine = part.after(seen, missing)

    def _readable(self, rows: Iterable[int]) -> Iterator[_Seen]:
        """The rows that can be decoded. Raises DataError beyond the tolerated share."""
        for row, found in zip(rows, in_order(self._look, rows, self.threads), strict=True):
            if isinstance(found, ImageError):
                if self.max_unreadable is None:
                    raise found
                self.skips.append(skipped(self.pool, row, str(found)))
                check_readable(self.skips, len(self.pool), self.max_unreadable)
            else:
                yield found

    def _look(self, row: int) -> _Seen | ImageError:
        try:
            pixels = self.pool.image(row, self.side)
        except ImageError as error:
            return error
        return _Seen(row, shrink(pixels, self.side), thumbnail(pixels))


def of_task(e: "Experiment", task: Step, fingerprints: Step, side: int, runtime: Runtime) -> Step:
    """All training images of the task, without their labels and whatever `shot` says: pre-training sees no labels.

    Test images are never among them; what is a copy of one is told, or left out with leak=remove. fingerprints: of the
    test images.
    """
    images, spec = task.estimate["images"], TaskImagesSpec(side, e.leak)
    return Step(
        "subset",
        VERSIONS["subset"],
        spec,
        {"task": task, "fingerprints": fingerprints},
        partial(build_of_task, spec=spec, location=task_stage.locate(e.task), runtime=runtime),
        slug=f"{e.task.name}-own",
        estimate={"images": images, "bytes": images * 3 * side**2 * SHAPE},
        by_part=("pixels.bin",),
    )


def build_of_task(
    folder: Path, inputs: Mapping[str, Artefact], *, spec: TaskImagesSpec, location: Location, runtime: Runtime
) -> dict[str, Any]:
    """Packs them by their place among the training images. Raises DataError for one that cannot be decoded."""
    from sept.data.labelled import read_image
    from sept.retrieval.copies import read_tests

    examples, tests = task_stage.train_images(inputs["task"], location), read_tests(inputs["fingerprints"].path)
    copies = 0

    def look(place: int) -> tuple[int, Pixels, Any]:
        pixels = read_image(examples[place], spec.side)
        return place, shrink(pixels, spec.side), thumbnail(pixels)

    def images() -> Iterator[tuple[int, Pixels]]:
        nonlocal copies
        looked_at = in_order(look, range(len(examples)), runtime.threads)
        while seen := list(islice(looked_at, AT_ONCE)):
            shown = tests.shown_by(Thumbnails.of(each for _, _, each in seen), runtime.accelerator)
            for (place, pixels, _), test in zip(seen, shown, strict=True):
                copies += test is not None
                if test is None or spec.leak != "remove":
                    yield place, pixels
                advance(1)

    with progress("copy the task's images", len(examples)) as advance:
        facts = write_subset(folder, images(), spec.side)
    if copies:
        what = "left out of" if spec.leak == "remove" else "kept in (leak=remove leaves them out of)"
        log.warning("%s training images of the task are copies of test images: %s the pre-training", copies, what)
    return {**facts, "copies_of_test_images": copies, "copies_removed": len(examples) - facts["images"]}
