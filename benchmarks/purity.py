"""How much of a selection comes from the target's domain, at budget = (target-domain images in the pool) / 2.

    python benchmarks/purity.py [overrides, e.g. retriever=ibot_micro_train seed=0]

The domain labels that this needs are written beside the drawn pool and read here alone, never by the pipeline.
"""

import csv
import sys

from hydra import compose, initialize_config_dir

from sept.compose import CONF, load, register
from sept.data.patterns import DOMAINS
from sept.machine import resolve
from sept.pipeline import Pipeline
from sept.retrieval.select import load_selection
from sept.stages.pool import IMAGES
from sept.stages.selection import SELECTION
from sept.store import Store

TASKS = ("patterns_a", "patterns_b", "patterns_c")


def main() -> None:
    register()
    print(f"{'task':<12} {'domain':<10} {'in pool':>8} {'share':>6} {'budget':>7} {'purity':>7}  also selected")
    for task in TASKS:
        report(task, sys.argv[1:])


def report(task: str, overrides: list[str]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        e = load(compose("config", [f"task={task}", "init=sept", *overrides]))
        store = Store(e.store.root)
        pool = store.make(Pipeline(e, resolve(e.hardware)).pool())
        with (pool.path / IMAGES / "labels.csv").open(newline="") as file:
            labels = csv.DictReader(file)
            domain_of = {f"{row['shard'].removesuffix('.tar')}/{row['member']}": row["domain"] for row in labels}
        inside = sum(domain == e.task.domain for domain in domain_of.values())
        e.budget.images = inside // 2
    selection = store.make(Pipeline(e, resolve(e.hardware)).selection())
    chosen = [domain_of[key] for key in load_selection(selection.path / SELECTION)["pool_key"].to_pylist()]
    others = sorted(((chosen.count(d), d) for d in DOMAINS if d != e.task.domain), reverse=True)[:3]
    also = ", ".join(f"{name} {count / len(chosen):.1%}" for count, name in others)
    purity = chosen.count(str(e.task.domain)) / len(chosen)
    counts = f"{inside:>8,} {inside / len(domain_of):>6.1%} {len(chosen):>7,} {purity:>7.1%}"
    print(f"{task:<12} {e.task.domain:<10} {counts}  {also}", flush=True)


if __name__ == "__main__":
    main()
