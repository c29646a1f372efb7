"""Does a selection pay for this task and this pool? Numbers, before any training, from vectors alone.

The task's own shots are what a selection should find, so each is looked for from the others, as if it lay in the pool:
the share of shots that would be among the K images nearest to the rest, against the share K / N that a random subset
holds, is how many times as many images like the task's a selection holds (`lift`). `docs/advice.md` has its errors on
worlds where the truth is known. Shapes: N pool rows, Q shots, D dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sept.data.rng import fold, numpy_rng
from sept.retrieval.diagnostics import proxy_a_distance
from sept.retrieval.features import Features, IntArray
from sept.retrieval.select import DEPTH_MARGIN, random_subset, round_robin

SHOTS = 500  # at most, spread evenly: the cost of a scan grows with them
SAMPLE = 100_000  # rows of the pool whose distance to the shots is measured; 1 % of them is known to a tenth
PAIRS = 2_000  # random pairs, and rows for the effective rank
LOOKED_UP = 250  # pool images whose nearest other image is looked for
CHOSEN = 5_000  # images of the selection, the first ones, that are compared with each other
DRAWS = 8  # random samples of the pool for a distance, whose deviation is its noise
SHUFFLES = 1_000  # of the classes, for chance
DUPLICATE = 0.05  # of the distance of a typical pair: of the pairs below, 85 to 100 % were copies on three worlds
WINDOW, MANY = 50, 0.5  # near-duplicates come where of so many images in a row this share are such
MARKS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)  # ranks whose similarity is told
BLOCK = 8_192
REFERENCE = 0.05  # of the pool: the lift of a larger budget says less, for it is at most N / K
Z = 1.96  # of a 95 % interval

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lift:
    """How many times as many images like the task's are among the `images` nearest as among random ones, with its 95 %
    interval; 1: as many."""

    images: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Apart:
    """Leave-one-out nearest neighbour among the shots by class: accuracy, chance with its deviation, and the
    probability of this accuracy by chance. All are shares."""

    accuracy: float
    chance: float
    noise: float
    p: float


@dataclass(frozen=True)
class Telling:
    """Whether the retriever tells the task from the pool.

    cosine: of random pairs of the pool. rank: effective rank of `dim` features. neighbours: share of shots whose
    nearest, of the other shots and as many pool images, is a shot; half would be chance, `neighbours_noise` its
    deviation. apart: None without classes that have two shots. distance: proxy A-distance of pool and task, mean and
    deviation over samples; alone: the same of pool and pool, for its noise. across: the lift if the pool has none of
    the task's classes, only others of its kind: each shot is looked for from those of other classes; None for one
    class.
    """

    cosine: float
    rank: float
    dim: int
    neighbours: float
    neighbours_noise: float
    apart: Apart | None
    distance: tuple[float, float]
    alone: tuple[float, float]
    lift: Lift
    across: Lift | None


@dataclass(frozen=True)
class Report:
    """All that an advice is made of. alike: estimated images of the pool like the task's. own: similarity of a typical
    shot to the nearest other shot. falls: (rank, similarity to the nearest shot) of pool images, most similar first.
    redundant: share of pool images with a near-duplicate in the pool; repeated: share of the first `compared` selected
    images that are one of an earlier one; repeats_from: the rank from which on they come, if they do. pixels: the lift
    of raw pixels, where there are images."""

    pool: int
    shots: int
    budget: int
    telling: Telling
    alike: int
    own: float
    falls: tuple[tuple[int, float], ...]
    redundant: float
    repeated: float
    compared: int
    repeats_from: int | None
    at_budget: Lift
    pixels: Lift | None


def telling(
    pool: np.ndarray, shots: np.ndarray, classes: Sequence[str], rows: int, budget: int, seed: int = 0
) -> Telling:
    """pool: a random sample (n, D) of `rows` vectors. shots: (Q, D), at least 2. classes: (Q,) names."""
    assert len(shots) > 1, "a shot alone has no other to be found from"
    rng = numpy_rng(seed, "advice")
    first, second = (pool[rng.integers(0, len(pool), PAIRS)] for _ in range(2))
    one, two = ([_draw(pool, len(shots), rng) for _ in range(DRAWS)] for _ in range(2))
    apart_from = [proxy_a_distance(part, shots, seed) for part in one]
    by_chance = [proxy_a_distance(left, right, seed) for left, right in zip(one, two, strict=True)]
    neighbours = [_neighbours(shots, _draw(pool, len(shots), rng)) for _ in range(DRAWS)]
    nearest, images = to_nearest(pool, shots), min(budget, reference(rows))
    others = left_out(shots, classes)[1] if len({*classes}) > 1 else None
    return Telling(
        cosine=float((first * second).sum(axis=1).mean()),
        rank=effective_rank(first),
        dim=pool.shape[1],
        neighbours=float(np.mean(neighbours)),
        neighbours_noise=0.5 / len(shots) ** 0.5,
        apart=apart(shots, classes, seed),
        distance=(float(np.mean(apart_from)), float(np.std(apart_from, ddof=1))),
        alone=(float(np.mean(by_chance)), float(np.std(by_chance, ddof=1))),
        lift=lift(nearest, left_out(shots)[1], rows, images),
        across=None if others is None else lift(nearest, others, rows, images),
    )


def reference(rows: int) -> int:
    """The budget whose lift tells whether a retriever works at all."""
    return max(1, int(REFERENCE * rows))


def measure(
    features: Features,
    shots: np.ndarray,
    classes: Sequence[str],
    budget: int,
    seed: int = 0,
    device: str = "cpu",
    pixels: tuple[np.ndarray, np.ndarray] | None = None,
) -> Report:
    """The report on a pool and the task's shots (Q, D) float32, unit vectors, Q > 1. pixels: of a random sample of the
    pool (n, P), and of the same shots (Q, P), unit vectors too. Under a minute for a million rows on two cores."""
    places = np.linspace(0, len(shots) - 1, min(SHOTS, len(shots))).astype(int)
    shots, names = shots[places], [classes[i] for i in places.tolist()]
    rows = features.embedded
    pool = features.take(sample(features, SAMPLE, seed))
    told = telling(pool, shots, names, rows, budget, seed)
    nearest, (_, own) = to_nearest(pool, shots), left_out(shots)
    alike = 2 * float((nearest >= np.median(own)).mean()) * rows
    descending = np.sort(nearest)[::-1]
    marks = [rank for rank in sorted({*MARKS, min(budget, rows)}) if len(pool) * rank >= rows and rank <= rows]
    falls = tuple((rank, float(descending[min(len(pool), round(len(pool) * rank / rows)) - 1])) for rank in marks)
    redundant, repeats = _duplicates(features, shots, min(budget, CHOSEN, rows), typical(pool, seed), seed, device)
    wide = told.lift.images
    return Report(
        pool=rows,
        shots=len(shots),
        budget=budget,
        telling=told,
        alike=min(rows, round(alike)),
        own=float(np.median(own)),
        falls=falls,
        redundant=redundant,
        repeated=float(repeats.mean()),
        compared=len(repeats),
        repeats_from=_first_many(repeats),
        at_budget=lift(nearest, own, rows, min(budget, rows)),
        pixels=None
        if pixels is None
        else lift(to_nearest(pixels[0], pixels[1][places]), left_out(pixels[1][places])[1], rows, wide),
    )


def sample(features: Features, most: int, seed: int) -> IntArray:
    """At most `most` random rows that have a vector, in random order."""
    wanted = min(features.rows, most + len(features.skipped))
    drawn = random_subset(features.rows, wanted, fold(seed, "advice"))
    return drawn[~np.isin(drawn, features.skipped)][:most]


def to_nearest(pool: np.ndarray, shots: np.ndarray) -> npt.NDArray[np.float32]:
    """(n,): the similarity of each pool vector (n, D) to the nearest shot (Q, D)."""
    parts = [pool[i : i + BLOCK].astype(np.float32) @ shots.T.astype(np.float32) for i in range(0, len(pool), BLOCK)]
    return np.concatenate([part.max(axis=1) for part in parts])


def left_out(shots: np.ndarray, classes: Sequence[str] | None = None) -> tuple[IntArray, npt.NDArray[np.float32]]:
    """(Q,) the nearest other shot of each, of another class if classes (Q,) are given, and its similarity."""
    scores = shots.astype(np.float32) @ shots.T.astype(np.float32)
    names = np.arange(len(shots)) if classes is None else np.array(classes)
    scores[names[:, None] == names] = -np.inf
    return scores.argmax(axis=1), scores.max(axis=1)


def lift(nearest: np.ndarray, own: np.ndarray, rows: int, images: int) -> Lift:
    """nearest: from `to_nearest` for a sample of a pool of `rows`; own: from `left_out`. Wilson's interval."""
    share = images / rows
    taken = min(len(nearest), max(1, round(share * len(nearest))))
    cut = np.partition(nearest, len(nearest) - taken)[len(nearest) - taken]
    found, n = float((own >= cut).mean()), len(own)
    middle, reach = found + Z**2 / (2 * n), Z * (found * (1 - found) / n + Z**2 / (4 * n**2)) ** 0.5
    low, high = ((middle + side * reach) / (1 + Z**2 / n) for side in (-1, 1))
    return Lift(images, found / share, max(0.0, low) / share, min(1.0, high) / share)


def apart(shots: np.ndarray, classes: Sequence[str], seed: int = 0) -> Apart | None:
    """None unless there are two classes, one of them with two shots."""
    _, labels, counts = np.unique(np.array(classes), return_inverse=True, return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        return None
    nearest, _ = left_out(shots)
    accuracy = float((labels[nearest] == labels).mean())
    rng = numpy_rng(seed, "advice", "classes")
    drawn = [rng.permutation(labels) for _ in range(SHUFFLES)]
    by_chance = np.array([(each[nearest] == each).mean() for each in drawn])
    beaten = float((1 + (by_chance >= accuracy).sum()) / (1 + SHUFFLES))
    return Apart(accuracy, float(by_chance.mean()), float(by_chance.std()), beaten)


def effective_rank(vectors: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values of (n, D), as `sept.methods.learner` has it."""
    values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def typical(pool: np.ndarray, seed: int = 0) -> float:
    """The median distance of two random vectors of the pool."""
    rng = numpy_rng(seed, "advice", "typical")
    left, right = (pool[rng.integers(0, len(pool), PAIRS)].astype(np.float64) for _ in range(2))
    return float(np.median(np.linalg.norm(left - right, axis=1)))


def _draw(pool: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return pool[rng.choice(len(pool), min(count, len(pool)), replace=False)]


def _neighbours(shots: np.ndarray, others: np.ndarray) -> float:
    """The share of shots whose nearest is another shot rather than one of as many others; ties count half."""
    _, own = left_out(shots)
    other = to_nearest(shots, others)
    return float((own > other).mean() + (own == other).mean() / 2)


def _duplicates(
    features: Features, shots: np.ndarray, images: int, far: float, seed: int, device: str
) -> tuple[float, npt.NDArray[np.bool_]]:
    """The share of pool images with a near-duplicate in the pool; and of the images selected first, in order, which
    are near-duplicates of an earlier one. far: the distance of a typical pair. One scan of the pool."""
    from sept.retrieval.index import search_many  # brings torch

    looked_up = sample(features, LOOKED_UP, seed)
    pool = _unit(features.take(looked_up))
    depth = int(np.ceil(DEPTH_MARGIN * images / len(shots)))
    others, lists = search_many([(pool, 2), (_unit(shots), depth)], features, device)
    if others.rows.shape[1] < 2:
        return 0.0, np.zeros(1, dtype=bool)
    itself = others.rows[:, 0] == looked_up
    scores = np.where(itself, others.scores[:, 1], others.scores[:, 0])
    rank, query = np.divmod(round_robin(lists.rows, images), len(shots))
    chosen = _unit(features.take(lists.rows[query, rank])).astype(np.float32)
    repeats = np.zeros(len(chosen), dtype=bool)
    least = 1 - (DUPLICATE * far) ** 2 / 2
    for start in range(0, len(chosen), BLOCK // 8):
        block = chosen[start : start + BLOCK // 8]
        alike = block @ chosen[: start + len(block)].T >= least
        repeats[start : start + len(block)] = np.tril(alike, start - 1).any(axis=1)
    return float((scores >= least).mean()), repeats


def _unit(vectors: np.ndarray) -> npt.NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _first_many(repeats: npt.NDArray[np.bool_]) -> int | None:
    """The first rank of the first WINDOW images in a row of which MANY are near-duplicates."""
    width = min(WINDOW, len(repeats))
    total = np.concatenate([[0], np.cumsum(repeats)])
    found = np.flatnonzero(total[width:] - total[:-width] >= MANY * width)
    return int(found[0]) if len(found) else None
