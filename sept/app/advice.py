"""What `advise=true` says: the numbers of `sept.retrieval.advice` in sentences, and what follows from them."""

import logging
from dataclasses import dataclass

import numpy as np

from sept.config import Experiment
from sept.errors import ConfigError, DataError
from sept.pipeline import Pipeline
from sept.retrieval.advice import Lift, Report, Telling, measure, sample, telling
from sept.retrieval.features import Features
from sept.runtime.threads import in_order
from sept.stages import queries as query_stage
from sept.stages.pool import open_pool
from sept.stages.task import locate
from sept.store import Store

LEAST_LIFT = 3.0  # below it a retriever cannot tell the task from the pool (docs/advice.md has the errors)
BY_CHANCE = 0.05  # a class accuracy as likely as this among shuffled classes is chance
BEYOND = 2.0  # deviations above the distance of two samples of the pool
LOOK_ALIKE = 0.95  # cosine of random pairs above which all images look nearly the same to a retriever
REDUNDANT = 0.1  # share of the pool
PIXELS = 2_000  # images of the pool whose raw pixels are compared
CHECKED = 20_000  # rows of the pool, before a training
LEAST = 2  # shots, and pool images
ANOTHER = (
    "try another retriever (retriever=hog for small images, retriever=dinov2_s14 for photographs; "
    "retriever=ibot_micro_train trains one on this pool), or selector=classifier"
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """kind: `random` (would do as well), `retriever`, `task` (its images are to be added), `budget`, `classes` (it
    depends on whether the pool has them), `duplicates` or `pays`; text: a line for people."""

    kind: str
    text: str


def advise(e: Experiment, pipeline: Pipeline, store: Store) -> str:
    """The advice for an experiment whose pool and shots are embedded. Raises ConfigError for a single shot
    or pool image."""
    features, shots, classes = _vectors(pipeline, store)
    if min(len(shots), features.embedded) < LEAST:
        raise ConfigError(
            f"advise=true compares {LEAST} shots and {LEAST} pool images at least, here are {len(shots)} shots and "
            f"{features.embedded} pool images: raise shot.per_class, or take a larger pool"
        )
    pixels = None if e.of_vectors else _pixels(e, pipeline, store, features)
    report = measure(features, shots, classes, _budget(e, features), e.seed, pipeline.runtime.accelerator, pixels)
    of = str(e.query.path) if e.of_vectors else e.task.name
    lines = [f"advice on {of} in pool {e.pool.name}, retriever {e.retriever.name}, budget {_budget(e, features):,}"]
    lines += [f"  {line}" for line in sentences(report)]
    return "\n".join([*lines, "what follows:", *(f"  {each.text}" for each in findings(report))])


def warn(e: Experiment, pipeline: Pipeline, store: Store) -> None:
    """Before a training: a line if the retriever cannot tell the task from the pool."""
    features, shots, classes = _vectors(pipeline, store)
    if min(len(shots), features.embedded) < LEAST:
        return
    pool = features.take(sample(features, CHECKED, e.seed))
    found = blind(telling(pool, shots, classes, features.embedded, _budget(e, features), e.seed))
    if found is not None:
        log.warning("%s; search.py with the same settings and advise=true says more", found.text)


def _budget(e: Experiment, features: Features) -> int:
    """budget=auto may take all of the pool."""
    return features.embedded if e.budget.images is None else e.budget.images


def sentences(r: Report) -> list[str]:
    """The numbers, a line each."""
    t, falls = r.telling, ", ".join(f"{value:.3f} at {rank:,}" for rank, value in r.falls)
    lines = [
        f"the pool: {r.pool:,} images; {_percent(r.redundant)} have a near-duplicate among the others",
        f"the features: two random images have cosine {t.cosine:.3f}, effective rank {t.rank:.1f} of {t.dim}"
        + (": nearly all images look the same to this retriever" if t.cosine > LOOK_ALIKE else ""),
        f"task and pool: proxy A-distance {_pm(t.distance)} (0 the same, 2 apart), of two samples of the pool "
        f"{_pm(t.alone)}: {'more than' if _distant(t) else 'within'} noise",
        f"task or pool: {_percent(t.neighbours)} of the shots are nearer to another shot than to as many pool images "
        f"(not told apart: 50 ± {100 * t.neighbours_noise:.0f} %)",
        f"a selection: {_lift(t.lift)}" + (f"; {_lift(r.at_budget)}" if r.at_budget.images != t.lift.images else ""),
        f"near enough: about {r.alike:,} pool images are as near to a shot as the shots are to each other",
        f"similarity to the nearest shot: {falls}; shots among themselves {r.own:.3f}, random pairs {t.cosine:.3f}",
        _repeats(r),
    ]
    if t.across is not None:
        lines.append(f"if the pool has none of the task's classes, only others of its kind: {_lift(t.across)}")
    if t.apart is not None:
        a = t.apart
        lines.append(
            f"classes: the nearest other shot is of the same class for {_percent(a.accuracy)} (chance "
            f"{100 * a.chance:.1f} ± {100 * a.noise:.1f} %): {'chance' if a.p > BY_CHANCE else 'told apart'}"
        )
    if r.pixels is not None:
        lines.append(f"raw pixels instead of this retriever: {_lift(r.pixels)}")
    return lines


def findings(r: Report) -> list[Finding]:
    """What follows from the numbers; at least one finding."""
    lift = r.telling.lift
    better = r.pixels is not None and r.pixels.value >= 2 * lift.value and r.pixels.low > lift.value
    cannot = blind(r.telling, better)
    found = [cannot or _worth(r)]
    if better and cannot is None:
        found.append(Finding("retriever", f"raw pixels find the task better than this retriever: {ANOTHER}"))
    if r.redundant > REDUNDANT or r.repeats_from is not None:
        found.append(Finding("duplicates", _deduplicate(r)))
    return found


def _worth(r: Report) -> Finding:
    """The finding on a selection by a retriever that can tell the task from the pool."""
    lift, across = r.telling.lift, r.telling.across
    if r.alike < r.shots:
        text = (
            f"the pool holds next to nothing like the task (about {r.alike:,} images): add the task's own training "
            "images to the pool, or another source; of this pool random images would do as well"
        )
        return Finding("task", text)
    if r.alike < r.budget / 2:
        text = (
            f"only about {r.alike:,} images are like the task, and the budget is {r.budget:,}: "
            f"budget.images={r.alike} would leave out what is not; or add the task's own images to the pool"
        )
        return Finding("budget", text)
    if r.at_budget.value < LEAST_LIFT:
        text = (
            f"the budget is {_percent(r.budget / r.pool)} of the pool and holds {r.at_budget.value:.1f} times as many "
            f"images like the task's as random ones: a smaller one holds more of them, {lift.images:,} images "
            f"{lift.value:.1f} times"
        )
        return Finding("budget", text)
    if across is not None and across.value < LEAST_LIFT:
        text = (
            f"selecting pays if the pool shows the task's own classes ({lift.value:.1f} times as many as random ones), "
            f"not if it shows others of their kind alone ({across.value:.1f} times): see the gallery of search.py"
        )
        return Finding("classes", text)
    told = f"{r.at_budget.images:,} images hold about {r.at_budget.value:.1f} times"
    return Finding("pays", f"selecting should pay: {told} as many like the task's as random ones")


def blind(t: Telling, better: bool = False) -> Finding | None:
    """The finding on a retriever that cannot tell the task from the pool, None for one that can. better: whether raw
    pixels can."""
    if t.lift.value >= LEAST_LIFT:
        return None
    told = f"among the {t.lift.images:,} nearest images are {t.lift.value:.1f} times as many like the task's as random"
    sees = t.apart is None or t.apart.p <= BY_CHANCE
    if not _distant(t) and sees and not better:
        return Finding(
            "random",
            f"the pool looks like the task throughout ({told}): random images would do as well, or this retriever sees "
            "no difference where there is one",
        )
    return Finding("retriever", f"this retriever cannot tell the task from the pool ({told}): {ANOTHER}")


def _distant(t: Telling) -> bool:
    return t.distance[0] > t.alone[0] + BEYOND * t.alone[1]


def _repeats(r: Report) -> str:
    told = f"near-duplicates: {_percent(r.repeated)} of the first {r.compared:,} selected images repeat an earlier one"
    return told + (f"; from image {r.repeats_from:,} on most do" if r.repeats_from is not None else "")


def _deduplicate(r: Report) -> str:
    if r.repeats_from is None:
        return (
            f"{_percent(r.redundant)} of the pool are near-duplicates: remove them, or count on fewer different images"
        )
    return (
        f"from image {r.repeats_from:,} of the selection on most are near-duplicates of earlier ones: remove "
        "near-duplicates from the pool, or choose a smaller budget"
    )


def _lift(lift: Lift) -> str:
    return (
        f"the {lift.images:,} nearest images hold about {lift.value:.1f} times as many like the task's as random ones "
        f"({lift.low:.1f} to {lift.high:.1f})"
    )


def _pm(value: tuple[float, float]) -> str:
    return f"{value[0]:.2f} ± {value[1]:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _vectors(pipeline: Pipeline, store: Store) -> tuple[Features, np.ndarray, list[str]]:
    features = Features.concatenate([Features.open(store.read(step).path) for step in pipeline.features])
    shots, _, classes = query_stage.load(store.read(pipeline.queries))
    return features, shots, classes


def _pixels(
    e: Experiment, pipeline: Pipeline, store: Store, features: Features
) -> tuple[np.ndarray, np.ndarray] | None:
    """Raw grey pixels of some pool images (n, P) and of the shots (Q, P)."""
    from sept.transfer.probe import SIDE, standardised  # brings torch

    made = {f"pool{i}": store.read(step) for i, step in enumerate(pipeline.pools)}
    pool, threads = open_pool(made, pipeline.pool_locations), pipeline.runtime.threads
    assert isinstance(pipeline.queries.spec, query_stage.QueriesSpec)
    ids, _, read, _ = query_stage.images(store.read(pipeline.task), locate(e.task), pipeline.queries.spec)

    def of_pool(row: int) -> np.ndarray | None:
        try:
            return standardised(pool.image(row, SIDE))
        except DataError:  # it could not be read for embedding either
            return None

    seen = [each for each in in_order(of_pool, sample(features, PIXELS, e.seed).tolist(), threads) if each is not None]
    return np.stack(seen), np.stack([standardised(read(i)) for i in range(len(ids))])
