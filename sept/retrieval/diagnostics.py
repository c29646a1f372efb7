"""The composition of a selection, as numbers and lists for a manifest; distances between domains.

Reads a selection, vectors and names. The domain classifier is linear: task or not (SEPT Eq. 4, after Ganin et al.
2016). Pure functions. Shapes: Q queries, K budget, D dim; n, m samples of two domains, F folds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sept.data.rng import numpy_rng
from sept.retrieval.features import IntArray
from sept.retrieval.selections import Selection

RIDGE = 1e-3  # in units of the mean variance of a feature: fewer samples than dimensions are common
FOLDS = 5

FloatArray = npt.NDArray[np.float64]


def separate(left: np.ndarray, right: np.ndarray) -> tuple[FloatArray, float]:
    """The hyperplane (D,) and offset that separate left (n, D), above 0, from right (m, D): least squares on -1 and 1.

    Both domains have equal weight whatever their sizes: the error is the mean of the two misclassification rates.
    Closed form in float64, O((n + m) D^2 + D^3): one fit for 10,000 samples of 768 dimensions takes half a second.
    """
    left, right = left.astype(np.float64), right.astype(np.float64)
    means = left.mean(axis=0), right.mean(axis=0)
    middle = (means[0] + means[1]) / 2
    moments = [(part - middle).T @ (part - middle) / (2 * len(part)) for part in (left, right)]
    covariance = moments[0] + moments[1]
    ridge = RIDGE * np.trace(covariance) / len(covariance)
    if not ridge:
        return np.zeros(len(covariance)), 0.0  # all samples are one point
    weights = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), (means[0] - means[1]) / 2)
    return weights, -float(weights @ middle)


def proxy_a_distance(left: np.ndarray, right: np.ndarray, seed: int) -> float:
    """2 (1 - 2 error) of a domain classifier on held-out samples: 0 for indistinguishable domains (by chance slightly
    below), 2 for perfectly separable ones (Ben-David et al. 2010; the right side of SEPT Eq. 4).

    left (n, D), right (m, D): float vectors, of each domain at least two. Cross-validated over at most `FOLDS` folds.
    """
    folds = min(FOLDS, len(left), len(right))
    assert folds > 1, "a domain of one image has no distance to another"
    parts = [_folds(len(side), folds, seed, name) for side, name in ((left, "left"), (right, "right"))]
    wrong = np.zeros(2)
    for fold in range(folds):
        weights, offset = separate(left[parts[0] != fold], right[parts[1] != fold])
        wrong += [
            _misplaced(sign * (side[part == fold] @ weights + offset))
            for side, part, sign in ((left, parts[0], 1), (right, parts[1], -1))
        ]
    return float(2 * (1 - 2 * (wrong / (len(left), len(right))).mean()))


def _folds(samples: int, folds: int, seed: int, name: str) -> npt.NDArray[np.int64]:
    """(samples,) the fold of each; sizes differ by at most one."""
    return numpy_rng(seed, "proxy A-distance", name).permutation(samples) % folds


def _misplaced(scores: np.ndarray) -> float:
    """How many lie below 0; those at 0 count half."""
    return float((scores < 0).sum() + (scores == 0).sum() / 2)


MOST_VECTORS = 10_000  # sampled from a selection for the distance, which adds at most 0.01 to its standard deviation
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
    """How many selected images come from each query, (Q,), and each class: {per_query: [..], per_class: {name: n}}.

    classes: (Q,) the class of each query. A query whose best matches came from others before has none.
    """
    per_query = np.bincount(selection.query, minlength=len(classes)).tolist()
    per_class = dict.fromkeys(sorted(set(classes)), 0)
    for name, brought in zip(classes, per_query, strict=True):
        per_class[name] += brought
    return {"per_query": per_query, "per_class": per_class}


def by_source(sources: Sequence[str], pool: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """For each source of the pool, in order: its selected images, their share of the selection, its share of the pool.
    sources: (K,) that of each image; pool: how many images each source has."""
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
    """Images that are in many queries' lists, down to the depth that the selection read: hubs of the feature space.

    ranked: (Q, depth or deeper) rows. {lists_mean: mean number of lists that contain a selected image; shared: share of
    selected images in more than one; most_used: the first `MOST_USED` as {row, queries}, ties by row}.
    """
    rows, lists = np.unique(ranked[:, : selection.depth], return_counts=True)
    of_selected = lists[np.searchsorted(rows, selection.rows)]
    top = np.lexsort((rows, -lists))[:MOST_USED]
    return {
        "lists_mean": float(of_selected.mean()),
        "shared": float((of_selected > 1).mean()),
        "most_used": [{"row": int(rows[i]), "queries": int(lists[i])} for i in top],
    }
