"""Which images about to be chosen are copies of test images, and which of each other."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from sept.data.images import Pixels
from sept.data.labelled import read_image
from sept.data.pool import ConcatPool
from sept.data.tasks.task import Example
from sept.retrieval.duplicates import copies, copies_within, groups
from sept.retrieval.fingerprints import Thumbnails, thumbnails
from sept.runtime.hardware import Runtime
from sept.runtime.progress import progress

WITHIN_MOST = 200_000  # images that are compared with each other: the cost grows with their square


class Copies:
    """Thumbnails of a task's test images, and of the pool rows that were asked for; each image is decoded once."""

    def __init__(self, pool: ConcatPool, tests: Sequence[Example], runtime: Runtime) -> None:
        self.pool, self.tests, self.device = pool, tests, runtime.accelerator
        with progress("look at the test images", len(tests)) as advance:
            self.references = thumbnails(_each((read_image(test) for test in tests), advance))
        self._place: dict[int, int] = {}  # of a row among the cards
        self._parts: list[Thumbnails] = []
        self._test: dict[int, str] = {}

    def of_tests(self, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: which of n rows show a test image."""
        new = np.array([row for row in rows.tolist() if row not in self._place], dtype=np.int64)
        if len(new):
            with progress("look for copies of test images", len(new)) as advance:
                part = thumbnails(_each((self.pool.image(row) for row in new.tolist()), advance))
            self._place |= {row: len(self._place) + i for i, row in enumerate(new.tolist())}
            self._parts.append(part)
            found = copies(part, self.references, self.device).nearest()
            for candidate, reference in zip(found.candidate.tolist(), found.reference.tolist(), strict=True):
                self._test[int(new[candidate])] = self.tests[reference].id
        return np.isin(rows, list(self._test))

    def tests_of(self, rows: np.ndarray) -> list[str | None]:
        """The test image that each row shows."""
        return [self._test.get(row) for row in rows.tolist()]

    def groups(self, rows: np.ndarray) -> np.ndarray | None:
        """(K,) the place of the first of the rows that each is a copy of, its own where of none; None for too many."""
        if len(rows) > WITHIN_MOST:
            return None
        grey, colour = (np.concatenate([getattr(part, name) for part in self._parts]) for name in ("grey", "colour"))
        chosen = Thumbnails(grey, colour).take([self._place[row] for row in rows.tolist()])
        return groups(copies_within(chosen, self.device), len(rows))

    def duplicates(self, group: np.ndarray | None) -> int | None:
        """How many of the rows show what one before them shows."""
        return None if group is None else int((group != np.arange(len(group))).sum())


def _each(images: Iterable[Pixels], advance: Callable[[int], None]) -> Iterator[Pixels]:
    for image in images:
        yield image
        advance(1)
