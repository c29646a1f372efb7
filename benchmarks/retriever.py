"""How much of a selection comes from the target's domain, at budget = (target-domain images in the pool) / 2; and how
well a linear probe on the pool's features names an image's domain.

    python benchmarks/retriever.py [overrides, e.g. retriever=ibot_micro_train seed=0]

The domain labels that this needs are written beside the drawn pool and read here alone, never by the pipeline.
"""

import csv
import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from sept.compose import CONF, load, register
from sept.config import Experiment
from sept.data.patterns.domains import DOMAINS
from sept.pipeline import Pipeline
from sept.retrieval.features import Features
from sept.retrieval.selections import load_selection
from sept.runtime.hardware import resolve
from sept.stages.pool import IMAGES, open_pool
from sept.stages.selection import SELECTION
from sept.store import Store

TASKS = ("patterns_a", "patterns_b", "patterns_c")


PROBE_STEPS, PROBE_LR = 300, 0.03


def main() -> None:
    register()
    print(f"{'task':<12} {'domain':<10} {'in pool':>8} {'share':>6} {'budget':>7} {'purity':>7}  also selected")
    for task in TASKS:
        report(task, sys.argv[1:])
    probe(sys.argv[1:])


def experiment(overrides: list[str]) -> Experiment:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load(compose("config", overrides))


def domains(pool: Path) -> dict[str, str]:
    """Domain of every pool image by its key, in the order of the file."""
    with (pool / IMAGES / "labels.csv").open(newline="") as file:
        labels = csv.DictReader(file)
        return {f"{row['shard'].removesuffix('.tar')}/{row['member']}": row["domain"] for row in labels}


def report(task: str, overrides: list[str]) -> None:
    e = experiment([f"task={task}", "init=sept", *overrides])
    store = Store(e.store.root)
    domain_of = domains(store.make(Pipeline(e, resolve(e.hardware)).pools[0]).path)
    inside = sum(domain == e.task.domain for domain in domain_of.values())
    e.budget.images = inside // 2
    selection = store.make(Pipeline(e, resolve(e.hardware)).selection)
    chosen = [domain_of[key] for key in load_selection(selection.path / SELECTION)["pool_key"].to_pylist()]
    others = sorted(((chosen.count(d), d) for d in DOMAINS if d != e.task.domain), reverse=True)[:3]
    also = ", ".join(f"{name} {count / len(chosen):.1%}" for count, name in others)
    purity = chosen.count(str(e.task.domain)) / len(chosen)
    counts = f"{inside:>8,} {inside / len(domain_of):>6.1%} {len(chosen):>7,} {purity:>7.1%}"
    print(f"{task:<12} {e.task.domain:<10} {counts}  {also}", flush=True)


def probe(overrides: list[str]) -> None:
    """Linear classifier on the features of half of the pool, tested on the other half."""
    e = experiment(overrides)
    store, pipeline = Store(e.store.root), Pipeline(e, resolve(e.hardware))
    pool = open_pool({"pool0": store.make(pipeline.pools[0])}, pipeline.pool_locations)
    features = Features.open(store.make(pipeline.features[0]).path)
    domain_of = domains(store.make(pipeline.pools[0]).path)
    labels = torch.tensor([DOMAINS.index(domain_of[pool.key(row)]) for row in range(len(pool))])
    vectors = torch.from_numpy(features.take(range(len(pool))))
    vectors = (vectors - vectors.mean(0)) / vectors.std(0)
    train = torch.arange(len(pool)) % 2 == 0
    linear = torch.nn.Linear(features.dim, len(DOMAINS))
    optimizer = torch.optim.Adam(linear.parameters(), lr=PROBE_LR)
    for _ in range(PROBE_STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(linear(vectors[train]), labels[train]).backward()
        optimizer.step()
    right = (linear(vectors[~train]).argmax(1) == labels[~train]).float().mean().item()
    print(f"domain of a pool image, linear probe on its features: {right:.1%} right (chance {1 / len(DOMAINS):.0%})")


if __name__ == "__main__":
    main()
