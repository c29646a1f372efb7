"""Images of the pool that cannot be decoded, as manifests name them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sept.data.pool import ConcatPool
from sept.retrieval.shards import Skip

NAMED_SKIPS = 1_000  # in the manifest; all are in the shards' own files


def skipped(pool: ConcatPool, row: int, reason: str) -> Skip:
    """reason: the message of an ImageError of the pool, which begins with the key."""
    key = pool.key(row)
    return Skip(row, key, reason.removeprefix(f"{key}: "))


def describe_skips(skips: Sequence[Skip]) -> list[dict[str, Any]]:
    """The first of the skipped images, for a manifest."""
    return [asdict(skip) for skip in skips[:NAMED_SKIPS]]
