"""What is to be said of an accuracy that looks like a result and is none: chance, below the floor, no gain.

docs/advice.md has the rates at which these remarks are wrong.
"""

import math
from collections.abc import Sequence

CHANCE, FLOOR, UNTRAINED = "at chance", "below the floor", "not above rand_init"
FEATURES = "features as of random weights"
MEANING = {
    CHANCE: "always naming one class gets as much (binomial test over the test images)",
    FLOOR: "the nearest of the same shots on raw grey pixels gets more, without any training",
    UNTRAINED: "fine-tuning random weights gets as much: the initial weights did not help",
    FEATURES: "a probe on the frozen features gets no more than on those of random weights: for this task the "
    "pre-training learned nothing, whatever became of its loss",
}
P = 0.01  # above chance if a guesser gets as much with a lower probability
Z = 1.645  # of a one-sided 95 % test


def remarks(
    score: float,
    tests: int | None,
    chance: float | None,
    floor: float | None,
    gains: Sequence[float] = (),
    probe: float | None = None,
    probe_gains: Sequence[float] = (),
) -> list[str]:
    """The remarks that an accuracy in percent on `tests` images deserves; none for what is not known.

    gains: of the accuracy over that of random weights, one for each independent seed. probe, probe_gains: the same of a
    probe on frozen features.
    """
    told = []
    if tests is not None and chance is not None and by_chance(score, tests, chance):
        told.append(CHANCE)
    if floor is not None and score < floor:
        told.append(FLOOR)
    if tests is not None and gains and not gained(score, tests, gains):
        told.append(UNTRAINED)
    if tests is not None and probe is not None and probe_gains and not gained(probe, tests, probe_gains):
        told.append(FEATURES)
    return told


def by_chance(score: float, tests: int, chance: float) -> bool:
    """Whether guesses that are right with probability `chance` (percent) get `score` percent or more with probability
    P."""
    from scipy.special import bdtrc  # of the binomial distribution; importing scipy takes a while

    hits = round(score / 100 * tests)
    return hits <= 0 or bool(bdtrc(hits - 1, tests, min(chance / 100, 1.0)) > P)


def gained(score: float, tests: int, gains: Sequence[float]) -> bool:
    """Whether the mean gain is more than noise: that between seeds if they are three, else that of two accuracies on as
    many test images."""
    mean = math.fsum(gains) / len(gains)
    if len(gains) >= 3:
        from scipy.special import stdtrit

        spread = math.sqrt(math.fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1))
        return mean > float(stdtrit(len(gains) - 1, 0.95)) * spread / math.sqrt(len(gains))
    variances = [share * (1 - share) for share in (score / 100, min(max((score - mean) / 100, 0.0), 1.0))]
    return mean > 100 * Z * math.sqrt(math.fsum(variances) / tests)
