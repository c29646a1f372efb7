"""Rows of a table as `sept.tables.rows` gives them, without a store: for the tests of what is made of rows."""

import statistics
from functools import cache
from typing import Any

from sept import compose
from sept.config import Experiment
from sept.results import CELL, MEASURES, family
from sept.tables.paper import printed
from sept.tables.statistics import gain

COMMIT = {"sha": "0123456789abcdef0123456789abcdef01234567", "dirty": False}


def run(score: float, seed: int, finetune_seed: int = 0, key: str = "", **rest: Any) -> dict[str, Any]:
    """A finished cell."""
    key = key or f"{hash((score, seed, finetune_seed)) & 0xFFFFFFFF:064x}"
    made = {"stage": "finetune", "key": key, "path": f"finetune/x-{key[:16]}", "flops": 2e9, "wall_s": 3.0}
    made |= {"used": {"cpu_s": 2.0, "gpu_s": 0.0, "cpu_j": None, "gpu_j": None}, "device": "a processor", "gpus": 0}
    measures = dict.fromkeys(MEASURES) | {"top1": score, "best_top1": score, "frozen_top1": score / 2}
    costs = {"flops": 2e9, "shared_flops": 1e9, "wall_s": 3.0, "shared_wall_s": 1.5, "pool_images": 0, "co2e_kg": 0.5}
    about = {"commit": COMMIT, "status": "done", "artefacts": [made | {"shared": False}], "metric": "top1"}
    measures |= {"tests": 800, "chance": 6.25, "floor": 15.0, "untrained": None, "probe_untrained": None, "remarks": []}
    return measures | costs | about | {"seed": seed, "finetune_seed": finetune_seed, "score": score, "key": key} | rest


def line(init: str, scores: list[float], runs: list[dict[str, Any]] | None = None, **rest: Any) -> dict[str, Any]:
    """A row whose runs have the seeds 0, 1, .. unless they are given."""
    named = dict.fromkeys((*CELL, "variant")) | {"task": "a", "shot": 5, "init": init}
    if init in ("random", "sept"):
        named |= {"budget": 10, "pool": "p"}
    if init == "sept":
        named |= {"query": "image", "retriever": "r"}
    named |= {name: value for name, value in rest.items() if name in named}
    runs = runs or [run(score, seed) for seed, score in enumerate(scores)]
    row = named | {"n": len(runs), "seeds": len({each["seed"] for each in runs})}
    row |= {"metric": "top1" if runs else None, "status": "" if runs else "missing"}
    row |= {"paper": printed(named), "reason": None, "remarks": "", "runs": runs}
    row |= {"experiments": [experiment(init) for _ in runs], "cell": experiment(init)}
    if runs:
        row |= {"mean": statistics.fmean(each["score"] for each in runs), "frozen_mean": 1.0}
        row |= {name: runs[0][name] for name in ("flops", "shared_flops", "wall_s", "shared_wall_s", "pool_images")}
    if len(runs) > 1:
        row |= {"std": statistics.stdev(each["score"] for each in runs), "frozen_std": 0.5}
    return row | {name: value for name, value in rest.items() if name not in named}


@cache
def experiment(init: str) -> Experiment:
    """The default one, in a store that holds nothing."""
    weights = ["init.weights=/w"] if init.startswith("in1k") else []
    return compose.experiment([f"init={family(init)}", *weights, "store.root=no_such_store"])


def table(*lines: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows that belong together, with what each has over random images."""
    found = [(each, gain(each, lines)) for each in lines]
    return [
        each if over is None else each | {"gain": over.mean, "gain_n": over.n} | bounds(over) for each, over in found
    ]


def bounds(over: Any) -> dict[str, Any]:
    if over.within_noise is None:
        return {}
    return {"gain_low": over.low, "gain_high": over.high, "within_noise": "yes" if over.within_noise else "no"}
