"""Spherical k-means over unit vectors, and draws from its clusters in proportion to given masses.

Shapes: n vectors, D dim, C clusters, N pool rows.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from sept.data.rng import fold, numpy_rng
from sept.retrieval.features import IntArray

ROUNDS = 20  # of Lloyd's; the mean cosine rises by less than 0.1 % after ten
ROWS_AT_ONCE = 8192

FloatArray = npt.NDArray[np.float32]


def centroids(vectors: np.ndarray, count: int, seed: int, device: str) -> FloatArray:
    """(C, D) unit centres of `count` clusters of the unit vectors (n, D), by cosine (Dhillon and Modha 2001).

    Initialised with vectors drawn by the seed. An empty cluster takes the vector with the lowest cosine to its centre.
    """
    start = np.sort(numpy_rng(seed, "centroids").choice(len(vectors), count, replace=False))
    centres = vectors[start].astype(np.float32)
    for _ in range(ROUNDS):
        label, cosine = nearest(vectors, centres, device)
        sums = np.zeros((count, vectors.shape[1]))
        order = np.argsort(label, kind="stable")
        held, first = np.unique(label[order], return_index=True)
        sums[held] = np.add.reduceat(vectors[order].astype(np.float64), first, axis=0)
        empty = np.setdiff1d(np.arange(count), held)
        sums[empty] = vectors[np.argsort(cosine, kind="stable")[: len(empty)]]
        moved = normalize(torch.from_numpy(sums), dim=1).float().numpy()
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def nearest(vectors: np.ndarray, centres: FloatArray, device: str) -> tuple[IntArray, FloatArray]:
    """(n,) the index of each vector's nearest centre, the lower one for ties, and its cosine."""
    labels, cosines = np.empty(len(vectors), dtype=np.int64), np.empty(len(vectors), dtype=np.float32)
    columns = torch.from_numpy(centres).to(device).T
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        here = slice(start, start + ROWS_AT_ONCE)
        cosine = torch.from_numpy(vectors[here].astype(np.float32)).to(device) @ columns
        best = cosine.max(dim=1)
        cosines[here], labels[here] = best.values.cpu().numpy(), best.indices.cpu().numpy()
    return labels, cosines


def quotas(mass: np.ndarray, sizes: np.ndarray, budget: int) -> IntArray:
    """(C,) how many to draw from each cluster: in proportion to its mass by largest remainders, at most its size; the
    excess of full clusters is redistributed in proportion. Clusters without mass get none. Sums to the budget, or less
    if the clusters with mass hold less."""
    given = np.zeros(len(mass), dtype=np.int64)
    while True:
        left = budget - int(given.sum())
        weight = np.where(given < sizes, mass, 0).astype(np.float64)
        if left == 0 or not weight.any():
            return given
        ideal = left * weight / weight.sum()
        share = np.floor(ideal).astype(np.int64)
        rest = np.argsort(-(ideal - share) + 2.0 * (weight == 0), kind="stable")[: left - int(share.sum())]
        share[rest] += 1
        given = np.minimum(given + share, sizes)


def by_mass(label: np.ndarray, mass: np.ndarray, closeness: np.ndarray, budget: int, seed: int) -> IntArray:
    """(budget,) rows drawn from the clusters in proportion to their mass, interleaved so that every prefix is, too.

    label: (N,) the cluster of each row, negative for rows that cannot be drawn. If the clusters with mass hold too few,
    the others follow one by one, by closeness (C,), largest first. Fewer rows if all hold less.
    """
    sizes = np.bincount(label[label >= 0], minlength=len(mass))
    given = quotas(mass, sizes, budget)
    others = np.argsort(-np.where(mass > 0, -np.inf, closeness), kind="stable")[: int((mass == 0).sum())]
    before = np.cumsum(sizes[others]) - sizes[others]
    given[others] = np.clip(budget - given.sum() - before, 0, sizes[others])
    place = np.zeros(len(mass))  # of the other clusters, after all turns of those with mass
    place[others] = 1 + np.arange(len(others))
    rows = np.flatnonzero(np.append(given, 0)[label] > 0)  # -1 is the zero at the end
    lots = np.random.Philox(key=fold(seed, "cluster draw")).random_raw(len(label))[rows]
    rows = rows[np.lexsort((lots, label[rows]))]
    of = label[rows]
    position = np.arange(len(rows)) - np.searchsorted(of, of)
    rows, of, position = (each[position < given[of]] for each in (rows, of, position))
    turn = place[of] + (position + 0.5) / given[of]
    return rows[np.lexsort((rows, turn))]
