"""`python -m sept.ledger [TABLE ..] [KEY=VALUE ..]`: what the store, or the rows of tables, have cost, by stage.

Of a store: everything in it, builds that were repeated, and work that failed or waits to be resumed. Of a table: each
artefact once, apart what one task costs and what all tasks share, and after how many tasks selecting stops being
cheaper than one pre-training on ImageNet-1k. `carbon=france` chooses the grid.
"""

import argparse
import csv
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sept.compose import check_overrides, expand, experiment
from sept.config import Experiment
from sept.costs.bill import Cost, assumed, by_stage, cost, grid, of_runs, total
from sept.costs.settings import Carbon
from sept.costs.shared import amortised, break_even, break_even_own_architecture
from sept.errors import ConfigError, DataError, SeptError
from sept.paper import published
from sept.runtime import command
from sept.stages.finetune import STAGES as FINETUNING
from sept.store import Artefact, Store
from sept.store.build import read_work, so_far
from sept.store.step import load_artefact
from sept.tables.labels import Line, label, varying_choices
from sept.tables.rows import rows

BASELINE, BASELINE_EPOCHS = "in1k", 300  # the pre-training that SEPT is compared with
COLUMNS = ("stage", "key", "flops", "wall_s", "cpu_s", "gpu_s", "cpu_j", "gpu_j", "device", "attempts")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a bill and returns the exit code."""
    options = _parser().parse_args(arguments)
    overrides = [text for text in options.named if "=" in text or text.startswith("~")]
    names = [text for text in options.named if text not in overrides]
    try:
        check_overrides(overrides)
        e = experiment(overrides) if not names else None
        if e is not None:
            store = Store(e.store.root, mode="read-only")
            if options.csv:
                _write_csv(store)
            else:
                print("\n".join(of_store(store, e.carbon)))
        for name in names:
            if options.csv:
                raise ConfigError(f"--csv lists a whole store: leave out {name}, or use python -m sept.tables --csv")
            cells = expand(name, overrides)
            print("\n".join([name, *of_table(cells)]))
    except SeptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def of_store(store: Store, carbon: Carbon) -> list[str]:
    """The lines of a store's bill."""
    made, damaged = _artefacts(store)
    left = [*_unfinished(store)]
    if not (made or damaged or left):
        raise ConfigError(f"{store.root} holds no artefacts; name a store with store.root=FOLDER or SEPT_STORE")
    stages = by_stage((record(each) for each in made), carbon)
    bill = [*stages.items(), ("all", total(stages.values()))]
    again = [each.manifest["earlier"] for each in made if each.manifest["earlier"] is not None]
    if again:
        bill.append(("earlier builds of these", total(cost(each, carbon, each["builds"]) for each in again)))
    if left:
        bill.append(("not finished", total(cost(each, carbon) for each in left)))
    lines = [f"bill of {store.root}", *_grid(bill, carbon)]
    for each in left:
        why = f"failed: {each['failure']}" if each["failure"] else "waits to be resumed"
        lines.append(f"not finished: {each['name']}, {each['wall_s']:,.0f} s so far, {why}")
    return [*lines, *(f"damaged, not counted: {why}" for why in damaged), assumed(carbon)]


def of_table(cells: Sequence[Experiment]) -> list[str]:
    """The lines of a table's bill: by stage, then of each row what a task costs, then when selecting is cheaper."""
    lines, carbon = rows(cells), cells[0].carbon
    made = [each for line in lines for run in line["runs"] for each in run["artefacts"]]
    if not made:
        return ["no run of it is in the store"]
    bill = of_runs(made, carbon)
    tasks = len({line["task"] for line in lines})
    told = "serves this one task" if tasks == 1 else f"{tasks} tasks share"
    bill += [(f"  {name}", each) for name, each in _of_rows(lines, carbon)]
    return [*_grid(bill, carbon), *_crossing(lines, tasks, told), assumed(carbon)]


def _of_rows(lines: Sequence[Line], carbon: Carbon) -> Iterator[tuple[str, Cost]]:
    """What a run of each row costs by itself: the marginal cost of a task."""
    names = varying_choices(lines)
    for line in lines:
        runs = [total(cost(each, carbon) for each in run["artefacts"] if not each["shared"]) for run in line["runs"]]
        if runs:
            mean = f", mean of {len(runs)} runs" if len(runs) > 1 else ""
            each = replace(total(runs) * (1 / len(runs)), artefacts=round(total(runs).artefacts / len(runs)))
            yield f"{label(line, names)}{mean}", each


def _crossing(lines: Sequence[Line], tasks: int, told: str) -> Iterator[str]:
    """Marginal and amortised FLOPs of each row that selects by similarity, and its break-even with ImageNet."""
    for line in lines:
        e: Experiment | None = next(iter(line["experiments"]), None)
        if e is None or not e.searches or not line["runs"]:
            continue
        own, shared = line["flops"], line["shared_flops"]
        images, epochs = published(BASELINE).images, e.compute.epochs or BASELINE_EPOCHS
        baseline = images * epochs * e.pretrain.flops(e.backbone)
        before = own - _of_stages(line, [*FINETUNING.values()])  # fine-tuning is the same for both
        n, first = break_even(shared, before, baseline), break_even_own_architecture(shared, before, baseline)
        yield (
            f"{label(line, varying_choices(lines))}: {own:.3g} FLOPs a task, and {amortised(own, shared, tasks):.3g} "
            f"with its part of what {told}. {e.pretrain.title} on ImageNet-1k ({images:,} images, {epochs} epochs) "
            f"would take {baseline:.3g}: {_when(n, first)}"
        )


def _of_stages(line: Line, stages: Sequence[str]) -> float:
    """FLOPs of a run in these stages, a mean over the runs."""
    spent = (each["flops"] for run in line["runs"] for each in run["artefacts"] if each["stage"] in stages)
    return sum(spent) / len(line["runs"])


def _when(n: float, first: float) -> str:
    if n < 1:
        shared = "selecting is cheaper for no number of tasks on one architecture"
    else:
        shared = f"selecting is cheaper for up to {int(n):,} tasks ({n:,.2f}) on one architecture"
    if first == float("inf"):
        return f"{shared}, and for none with an architecture each"
    return f"{shared}, and from {max(math.ceil(first), 1):,} ({max(first, 0):,.2f}) on with an architecture each"


def _artefacts(store: Store) -> tuple[list[Artefact], list[str]]:
    """The published ones in the order of their making, and why others are left out."""
    made, damaged = [], []
    for folder in store.artefact_folders():
        try:
            made.append(load_artefact(folder))
        except DataError as error:
            damaged.append(str(error))
    return sorted(made, key=lambda each: each.created), damaged


def record(artefact: Artefact) -> dict[str, Any]:
    manifest = artefact.manifest
    known = {name: manifest[name] for name in ("stage", "key", "wall_s", "used", "device", "gpus", "attempts")}
    return known | {"flops": float(artefact.facts.get("flops", 0.0))}


def _unfinished(store: Store) -> Iterator[dict[str, Any]]:
    """Records of work that was begun and is not published."""
    for folder in store.unfinished_folders():
        work = read_work(folder)
        if work is not None:
            yield {"name": folder.name, "failure": work.get("failure"), **so_far(folder, work)}


def _grid(bill: Sequence[tuple[str, Cost]], carbon: Carbon) -> list[str]:
    table = grid(bill, carbon)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in table]


def _write_csv(store: Store) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in _artefacts(store)[0]:
        known = record(each) | each.manifest["used"]
        writer.writerow(["" if known[name] is None else known[name] for name in COLUMNS])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sept.ledger", description=__doc__)
    parser.add_argument(
        "named",
        nargs="*",
        metavar="TABLE | KEY=VALUE",
        help="tables from conf/table, and settings, e.g. store.root=FOLDER carbon=france",
    )
    parser.add_argument("--csv", action="store_true", help="one line per artefact of the store, for programs")
    return parser


if __name__ == "__main__":
    command.run(main)
