"""Finds copies of a task's test images, and copies within a set of images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sept.data.pool import ConcatPool
from sept.retrieval.duplicates import copies, copies_within, groups
from sept.retrieval.features import IntArray
from sept.retrieval.fingerprints import THUMBNAIL, Thumbnails, thumbnail, write_thumbnails
from sept.runtime.hardware import Runtime
from sept.runtime.progress import progress
from sept.runtime.threads import in_order

TESTS = "tests.parquet"
WITHIN_MOST = 200_000  # images compared with each other at most: the cost is quadratic


@dataclass(frozen=True)
class TestImages:
    """A task's test images: their ids and, in the same order, their thumbnails."""

    __test__ = False  # not one of pytest's

    ids: Sequence[str]
    thumbnails: Thumbnails

    def shown_by(self, candidates: Thumbnails, device: str | torch.device = "cpu") -> list[str | None]:
        """For each candidate the id of the test image that it is a copy of, or None."""
        found = copies(candidates, self.thumbnails, device).nearest()
        shown: list[str | None] = [None] * len(candidates)
        for candidate, reference in zip(found.candidate.tolist(), found.reference.tolist(), strict=True):
            shown[candidate] = self.ids[reference]
        return shown


def write_tests(folder: Path, ids: Sequence[str], records: Iterable[np.ndarray]) -> None:
    """records: of `thumbnail`, one an id."""
    write_thumbnails(folder, records)
    pq.write_table(pa.table({"id": pa.array(ids, pa.string())}), folder / TESTS)


def read_tests(folder: Path) -> TestImages:
    return TestImages(pq.read_table(folder / TESTS)["id"].to_pylist(), Thumbnails.open(folder))


def first_alike(chosen: Thumbnails, device: str | torch.device = "cpu") -> IntArray | None:
    """(K,) the index of the first image that each is a copy of, its own if none; None for too many images."""
    if len(chosen) > WITHIN_MOST:
        return None
    return groups(copies_within(chosen, device), len(chosen))


class LeakCheck:
    """Which rows of a pool are copies of a test image: called with (n,) rows, returns (n,) bool. Decodes their
    images."""

    def __init__(self, pool: ConcatPool, tests: TestImages, runtime: Runtime) -> None:
        self.pool, self.tests, self.runtime = pool, tests, runtime

    def __call__(self, rows: IntArray) -> npt.NDArray[np.bool_]:
        with progress("look for copies of test images", len(rows)) as advance:
            records = []
            for record in in_order(self._look, rows.tolist(), self.runtime.threads):
                records.append(record)
                advance(1)
        shown = self.tests.shown_by(Thumbnails.of(records), self.runtime.accelerator)
        return np.array([test is not None for test in shown], dtype=bool)

    def _look(self, row: int) -> np.ndarray:
        return thumbnail(self.pool.image(row, THUMBNAIL))
