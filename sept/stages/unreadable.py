"""Images of the pool that cannot be decoded: named in manifests, tolerated up to a share."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sept.data.images import ImageError
from sept.data.pool import ConcatPool
from sept.retrieval.embedding import check_readable
from sept.retrieval.shards import Skip
from sept.runtime.progress import progress

NAMED_SKIPS = 1_000  # in the manifest; all are in the shards' own files


def skipped(pool: ConcatPool, row: int, reason: str) -> Skip:
    """reason: the message of an ImageError of the pool, which begins with the key."""
    key = pool.key(row)
    return Skip(row, key, reason.removeprefix(f"{key}: "))


def describe_skips(skips: Sequence[Skip]) -> list[dict[str, Any]]:
    """The first of the skipped images, for a manifest."""
    return [asdict(skip) for skip in skips[:NAMED_SKIPS]]


class Readable:
    """Sorts out the images of a pool that cannot be decoded; `skips` are those met so far."""

    def __init__(self, pool: ConcatPool, max_unreadable: float) -> None:
        self.pool, self.max_unreadable = pool, max_unreadable
        self.skips: list[Skip] = []

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Those of `rows` that can be decoded, in their order. Raises DataError beyond the tolerated share."""
        keep = np.ones(len(rows), dtype=bool)
        with progress("check that images can be read", len(rows)) as advance:
            for place, row in enumerate(rows.tolist()):
                try:
                    self.pool.image(row)
                except ImageError as error:
                    keep[place] = False
                    self.skips.append(skipped(self.pool, row, str(error)))
                    check_readable(self.skips, len(self.pool), self.max_unreadable)
                advance(1)
        return rows[keep]
