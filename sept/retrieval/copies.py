"""Finds copies of a task's test images, and copies within a set of images; keeps them out of a selection."""

from collections.abc import Callable, Iterable, Sequence
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


def find_leaks(
    choose: Callable[[IntArray], IntArray], is_leak: Callable[[IntArray], npt.NDArray[np.bool_]]
) -> tuple[IntArray, IntArray]:
    """The rows that `choose` returns for a pool without leaks, and the leaks found, ascending.

    choose(removed) returns the K rows chosen from a pool without the removed ones; is_leak(rows) (n,) -> (n,) is called
    once for every row about to be chosen. If the choice does not depend on unchosen rows, as in Algorithm 1 and every
    ranking, the result is that of a fully cleaned pool. Raises ConfigError, as `choose` does, when the remaining rows
    do not meet the budget.
    """
    removed, clean = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    while True:
        rows = choose(removed)
        new = rows[~np.isin(rows, clean)]
        leaks = is_leak(new) if len(new) else np.zeros(0, dtype=bool)
        if not leaks.any():
            return rows, removed
        clean = np.concatenate([clean, new[~leaks]])
        removed = np.union1d(removed, new[leaks])
