"""What a selection is made of, as numbers and lists fit for a manifest.

Reads a selection, vectors and names. Shapes: Q queries, K budget, D dim.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sept.data.rng import numpy_rng
from sept.retrieval.domain import proxy_a_distance
from sept.retrieval.features import IntArray
from sept.retrieval.selections import Selection

MOST_VECTORS = 10_000  # of a selection, drawn for the distance: they add at most 0.01 to its deviation
MOST_USED = 20


def domain_distance(chosen: np.ndarray, random: np.ndarray, task: np.ndarray, seed: int) -> dict[str, float]:
    """How far the chosen images (K, D) are from the task's (Q, D) and, for comparison, how far random ones of the pool
    are: proxy A-distances from 0 to 2 (SEPT Eq. 2-4). Random ones should be as many, at least `sampled` of them."""
    return {
        "a_distance_selection": proxy_a_distance(sampled(chosen, seed), task, seed),
        "a_distance_random": proxy_a_distance(sampled(random, seed), task, seed),
    }


def sampled(rows: np.ndarray, seed: int) -> np.ndarray:
    """`MOST_VECTORS` of the rows (n, ...), in their order; all if they are fewer. Also for row numbers, before their
    vectors are read."""
    if len(rows) <= MOST_VECTORS:
        return rows
    return rows[np.sort(numpy_rng(seed, "diagnostics").choice(len(rows), MOST_VECTORS, replace=False))]


def coverage(selection: Selection, classes: Sequence[str]) -> dict[str, Any]:
    """How many of the selection each query brought, (Q,), and each class: {per_query: [..], per_class: {name: n}}.

    classes: (Q,) the class of each query. A query whose best matches others brought before has none.
    """
    per_query = np.bincount(selection.query, minlength=len(classes)).tolist()
    per_class = dict.fromkeys(sorted(set(classes)), 0)
    for name, brought in zip(classes, per_query, strict=True):
        per_class[name] += brought
    return {"per_query": per_query, "per_class": per_class}


def by_source(sources: Sequence[str], pool: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Of each source of the pool, in its order: images of it selected, their share of the selection, its share of the
    pool. sources: (K,) that of each image; pool: how many images each source has."""
    counts, images = Counter(sources), sum(pool.values())
    assert counts.keys() <= pool.keys(), f"sources {counts.keys() - pool.keys()} are not the pool's"
    return {
        name: {
            "images": counts[name],
            "share": counts[name] / max(len(sources), 1),
            "share_of_pool": held / images,
        }
        for name, held in pool.items()
    }


def most_used(ranked: IntArray, selection: Selection) -> dict[str, Any]:
    """Which images many queries' lists name, down to the depth that the selection read: hubs of the feature space.

    ranked: (Q, depth or deeper) rows. {lists_mean: lists that name a selected image, on average; shared: the share of
    selected images that more than one names; most_used: the first `MOST_USED` as {row, queries}, ties by row}.
    """
    rows, lists = np.unique(ranked[:, : selection.depth], return_counts=True)
    of_selected = lists[np.searchsorted(rows, selection.rows)]
    top = np.lexsort((rows, -lists))[:MOST_USED]
    return {
        "lists_mean": float(of_selected.mean()),
        "shared": float((of_selected > 1).mean()),
        "most_used": [{"row": int(rows[i]), "queries": int(lists[i])} for i in top],
    }
