"""A linear domain classifier on features: task or not (SEPT Eq. 4, after Ganin et al. 2016). Pure functions.

Shapes: n, m samples of two domains, D dim, F folds.
"""

import numpy as np
import numpy.typing as npt

from sept.data.rng import numpy_rng

RIDGE = 1e-3  # in units of the mean variance of a feature: fewer samples than dimensions are common
FOLDS = 5

FloatArray = npt.NDArray[np.float64]


def separate(left: np.ndarray, right: np.ndarray) -> tuple[FloatArray, float]:
    """The hyperplane (D,), offset that tells left (n, D), above 0, from right (m, D): least squares on -1 and 1.

    Both domains weigh the same, however many samples they have: an error is the mean of the two shares misplaced.
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
    """2 (1 - 2 error) of a domain classifier on samples it has not seen: 0 for domains that cannot be told apart, a
    little below by chance, 2 for those that always can (Ben-David et al. 2010; the right side of SEPT Eq. 4).

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
    """(samples,) the fold of each, of equal sizes but for one."""
    return numpy_rng(seed, "proxy A-distance", name).permutation(samples) % folds


def _misplaced(scores: np.ndarray) -> float:
    """How many lie below 0; on 0 as good as a coin."""
    return float((scores < 0).sum() + (scores == 0).sum() / 2)
