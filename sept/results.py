"""A row of a results table, assembled from the manifests of the artefacts behind it, and remarks on its accuracy.

A remark says that what looks like a result is none: chance, below the floor, no gain. docs/advice.md has the rates at
which remarks are wrong.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from sept.backbones.files import origin
from sept.config import Experiment
from sept.costs.bill import cost, total
from sept.costs.settings import Carbon
from sept.data.settings import DETECTION_TASKS, SEGMENTATION_TASKS
from sept.methods.recipe import POOL_FEATURES
from sept.selectors import RandomSubset
from sept.store import Store
from sept.store.step import Artefact, Step

SHARED = ("pool", "task", "retriever", "features", "index")  # computed once for all tasks: SEPT amortises them
PRINTED = ("task", "shot", "init", "budget", "query", "retriever", "pool")  # what the paper's rows differ in
CELL = (*PRINTED, "method", "compute")
AUTO = "auto"  # the budget of a selector that stops by itself
# Percent; each row has those of its metric.
MEASURES = ("top1", "best_top1", "frozen_top1", "probe_top1", "ap", "ap50", "ap75", "miou")

METRICS = {
    "top1": "top-1",
    "best_top1": "best",
    "frozen_top1": "frozen",
    "probe_top1": "probe",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "voc_ap50": "VOC AP50",
    "miou": "mIoU",
}
CHANCE, FLOOR, UNTRAINED = "at chance", "below the floor", "not above rand_init"
FEATURES = "features as of random weights"
MEANING = {
    CHANCE: "always naming one class gets as much (binomial test over the test images)",
    FLOOR: "the nearest of the same shots on raw grey pixels gets more, without any training",
    UNTRAINED: "fine-tuning random weights gets as much: the initial weights did not help",
    FEATURES: "a probe on the frozen features gets no more than on those of random weights: what the pre-training "
    "learned, if anything, does not show without fine-tuning",
}
P = 0.01  # above chance if a guesser gets as much with a lower probability
Z = 1.645  # of a one-sided 95 % test


def choices(e: Experiment) -> dict[str, Any]:
    """The experiment's choices; null for one without effect on it (random initialisation has no pool)."""
    found, selected = e.searches, e.selects
    embedded = e.embeds and not e.of_vectors
    return {
        "task": e.task.name,
        "shot": _shot(e),
        "init": _init(e),
        "budget": (e.budget.images or AUTO) if selected else None,
        "query": e.query.name if found else None,
        "retriever": e.retriever.name if embedded else None,
        "pool": e.pool.name if selected else None,
        "method": e.pretrain.name if e.pretrains else None,
        "compute": _compute(e) if e.pretrains else None,
        "seed": e.seed,
        "finetune_seed": e.finetune.seed,
    }


def _compute(e: Experiment) -> str | None:
    """How long the pre-training is: `40 epochs`, `64,000 images`, `1e+13 FLOPs`; and what the FLOPs pay for besides."""
    c = e.compute
    if c.flops is None:
        images = None if c.images is None else f"{c.images:,} images"
        return images if c.epochs is None else f"{c.epochs:,} epochs"
    shared = f" for {c.tasks} tasks" if c.tasks > 1 else ""
    return f"{c.flops:g} FLOPs" + (f" with {' and '.join(c.include)}{shared}" if c.include else "")


def _init(e: Experiment) -> str:
    """The name of the init; for a random subset with a share of one source also that, `random curated 100%`; for one
    that the task's images join also that, `sept with task`; for a continued pre-training also its start, `sept from
    hub`."""
    selector = e.selector
    share = selector.share if e.pretrains and isinstance(selector, RandomSubset) else None
    chosen = e.initial if share is None else f"{e.initial} {selector.source} {100 * share:g}%"  # type: ignore[attr-defined]
    chosen = f"{chosen} with task" if e.selects and e.trains_on_task else chosen
    return f"{chosen} from {origin(e.pretrain.start)}" if e.pretrains and e.pretrain.start else chosen


def family(init: str) -> str:
    """The name of the init in a column as `_init` gives it."""
    return init.partition(" ")[0]


def _shot(e: Experiment) -> int | str:
    """Labelled images: a number per class, a share of each class (`50%`), `full`, or a total (`n1000`)."""
    if e.task.kind in (*DETECTION_TASKS, *SEGMENTATION_TASKS):
        return f"n{e.task.images}"
    if e.shot.share is not None:
        return f"{100 * e.shot.share:g}%"
    return "full" if e.shot.per_class is None else e.shot.per_class


def annotation(e: Experiment) -> str:
    """What the pre-training learnt from besides images: none, labels, captions, captions from labels, or features."""
    reads = e.pretrain.reads if e.selects else None
    if reads is None or reads == POOL_FEATURES:
        return reads or "none"
    from sept.stages.annotations import annotation_of

    return annotation_of(e.pool, reads).told


def row(e: Experiment, step: Step, store: Store, untrained: Step | None = None) -> dict[str, Any] | None:
    """The finished cell, or None. untrained: the same fine-tuning of random weights, to compare with if it is there.

    annotation and images: what was learnt from, and how many were pre-trained on. score is the headline value in
    percent, metric its name; those MEASURES that do not belong to the metric are None. chance, floor and untrained are
    accuracies to compare with, tests the number of test images; None where they do not apply. remarks: those of
    `sept.results`. flops, wall_s, cpu_s, gpu_s, kwh and co2e_kg are the cell's own, `shared_...` those of what is
    computed once per pool. status says whether a stage was stopped and resumed. artefacts: {stage, key, path below the
    store, flops, wall_s, used, device, gpus, shared} of each, inputs before what reads them.
    """
    final = store.find(step)
    if final is None:
        return None
    artefacts = [found for each in step.walk() if (found := store.find(each)) is not None]
    once = {each.key for shared in step.walk() if shared.stage in SHARED for each in shared.walk()}
    own = [a for a in artefacts if a.key not in once]
    shared = [a for a in artefacts if a.key in once]
    facts = final.facts
    tests, chance, floor = (facts.get(name) for name in ("tests", "chance", "floor"))
    plain = store.find(untrained) if untrained is not None else None
    gains = [] if plain is None else [facts["score"] - plain.facts["score"]]
    probe, below = facts.get("probe_top1"), facts.get("probe_untrained")
    probe_gains = [] if probe is None or below is None else [probe - below]
    return {
        **choices(e),
        "metric": facts["metric"],
        "score": facts["score"],
        **{name: facts.get(name) for name in MEASURES},
        "annotation": annotation(e),
        "images": next((a.facts["images"] for a in own if a.stage == "pretrain"), None),
        **{"tests": tests, "chance": chance, "floor": floor},
        "untrained": None if plain is None else plain.facts["score"],
        "probe_untrained": below,
        "remarks": remarks(facts["score"], tests, chance, floor, gains, probe, probe_gains),
        "images_seen": sum(a.facts.get("images_seen", 0) for a in own if a.stage == "pretrain"),
        "pool_images": sum(a.facts["rows"] for a in shared if a.stage == "pool"),
        "flops": _total(own, "flops"),
        "shared_flops": _total(shared, "flops"),
        "wall_s": round(sum(a.manifest["wall_s"] for a in own), 1),
        "shared_wall_s": round(sum(a.manifest["wall_s"] for a in shared), 1),
        **_energy(own, shared, e.carbon),
        "status": "resumed" if any(a.manifest["resumed"] for a in artefacts) else "done",
        "index_recall": next((a.facts["index_recall"] for a in artefacts if "index_recall" in a.facts), None),
        "index_kept": next((a.facts["index_kept"] for a in artefacts if "index_kept" in a.facts), None),
        "commit": final.manifest["commit"],
        "key": final.key,
        "keys": {stage: sorted(a.key for a in artefacts if a.stage == stage) for stage in {a.stage for a in artefacts}},
        "artefacts": [_entry(a, a.key in once, store) for a in artefacts],
    }


def _total(artefacts: Iterable[Artefact], fact: str) -> float:
    return float(sum(a.facts.get(fact, 0.0) for a in artefacts))


def _energy(own: Sequence[Artefact], shared: Sequence[Artefact], carbon: Carbon) -> dict[str, float]:
    """CPU and GPU seconds, kWh and kg CO2e of the cell alone; kWh and kg of what is computed once per pool."""
    alone, once = (total(cost({**a.manifest, **a.facts}, carbon) for a in group) for group in (own, shared))
    return {
        **{"cpu_s": alone.cpu_s, "gpu_s": alone.gpu_s, "kwh": alone.kwh, "measured_kwh": alone.measured_kwh},
        **{"co2e_kg": alone.co2e(carbon), "shared_kwh": once.kwh, "shared_co2e_kg": once.co2e(carbon)},
    }


def _entry(artefact: Artefact, shared: bool, store: Store) -> dict[str, Any]:
    return {
        "stage": artefact.stage,
        "key": artefact.key,
        "path": artefact.path.relative_to(store.root).as_posix(),
        "flops": float(artefact.facts.get("flops", 0.0)),
        **{name: artefact.manifest[name] for name in ("wall_s", "used", "device", "gpus")},
        "shared": shared,
    }


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
