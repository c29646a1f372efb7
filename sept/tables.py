"""`python -m sept.tables NAME`: a named sweep rendered from the store, at any time, blank where cells are missing."""

import argparse
import csv
import io
import itertools
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sept.compose import check_overrides, expand
from sept.config import Experiment
from sept.errors import SeptError
from sept.machine import resolve
from sept.pipeline import Pipeline
from sept.results import CELL, choices, row
from sept.store import Store

PAPER = Path(__file__).resolve().parent / "paper" / "tables.csv"
COLUMNS = (*CELL, "n", "mean", "std", "frozen_mean", "frozen_std", "flops", "wall_s", "paper")
MEAN_OF = {"mean": "top1", "frozen_mean": "frozen_top1", "flops": "flops", "wall_s": "wall_s"}
SPREAD_OF = {"std": "top1", "frozen_std": "frozen_top1"}
DEFAULT = "vits_in1k"  # the paper's retriever where none is searched with
PAPER_NAME = {"ibot_vit_s16": "vits_in1k", "ibot_micro": None, "ibot_micro_train": None}
DIGITS = {"mean": ".2f", "std": ".2f", "frozen_mean": ".2f", "frozen_std": ".2f", "flops": ".2e", "wall_s": ".0f"}
TITLES = {"mean": "top-1", "std": "±", "frozen_mean": "frozen", "frozen_std": "±", "wall_s": "wall s"}


def rows(cells: Iterable[Experiment]) -> list[dict[str, Any]]:
    """A row for each comparison, in the order of the sweep: mean and deviation over the seeds that are finished."""
    groups: dict[tuple[tuple, str], dict[str, dict[str, Any]]] = {}
    for e in cells:
        done = row(e, Pipeline(e, resolve(e.hardware)).run(), Store(e.store.root, mode="read-only"))
        group = groups.setdefault(_comparison(e), {})
        if done is not None:
            group[done["key"]] = done  # once, though a sweep may name it often: rand_init at every budget
    return [
        dict(zip(CELL, named, strict=True)) | _summary([*group.values()]) | {"paper": _paper(named)}
        for (named, _), group in groups.items()
    ]


def _comparison(e: Experiment) -> tuple[tuple, str]:
    """What a row is for: its first columns, and the key without seeds, which tells apart what no column shows."""
    unseeded = replace(e, seed=0, finetune=replace(e.finetune, seed=0))
    chosen = choices(e)
    return tuple(chosen[name] for name in CELL), Pipeline(unseeded, resolve(e.hardware)).run().key


def _summary(done: list[dict[str, Any]]) -> dict[str, Any]:
    if not done:
        return {"n": 0}
    values: dict[str, Any] = {"n": len(done)}
    for name, source in MEAN_OF.items():
        values[name] = statistics.fmean(each[source] for each in done)
    if len(done) > 1:
        for name, source in SPREAD_OF.items():
            values[name] = statistics.stdev(each[source] for each in done)
    return values


def _paper(key: tuple) -> float | None:
    """The paper's number for this comparison, None where it has none."""
    task, shot, init, budget, query, retriever, pool = key
    with PAPER.open(newline="") as file:
        for printed in csv.DictReader(file):
            same = (printed["task"], printed["shot"], printed["init"]) == (task, str(shot), init)
            trained = init not in ("random", "sept") or (int(printed["budget"]), printed["pool"]) == (budget, pool)
            encoder = PAPER_NAME.get(retriever, DEFAULT)
            searched = (printed["query"], printed["retriever"]) == (query or "image", encoder)
            if same and trained and searched:
                return float(printed["value"])
    return None


def cells_of(line: dict[str, Any]) -> list[str]:
    """A row's cells as text; nothing where there is nothing yet."""
    texts = []
    for name in COLUMNS:
        value = line.get(name)
        texts.append("" if value is None else format(value, DIGITS[name]) if name in DIGITS else str(value))
    return texts


def as_csv(name: str, lines: Sequence[dict[str, Any]]) -> str:
    """One line a comparison, under a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(cells_of(line) for line in lines)
    return text.getvalue()


def differences(lines: Sequence[dict[str, Any]]) -> list[str]:
    """For each comparison, how far sept lies above random, with the standard error of that difference."""
    texts = []
    for sept, random in itertools.product(lines, lines):
        alike = all(sept[name] == random[name] for name in ("task", "shot", "budget", "pool"))
        if (sept["init"], random["init"]) != ("sept", "random") or not alike or min(sept["n"], random["n"]) < 2:
            continue
        error = math.sqrt(sum(each["std"] ** 2 / each["n"] for each in (sept, random)))
        gap = sept["mean"] - random["mean"]
        shots = "all labels" if sept["shot"] == "full" else f"{sept['shot']} shots"
        texts.append(f"sept - random on {sept['task']}, {shots}: {gap:+.2f}, standard error {error:.2f}")
    return texts


def as_markdown(name: str, lines: Sequence[dict[str, Any]]) -> str:
    titles = [TITLES.get(name, name) for name in COLUMNS]
    body = [titles, ["---"] * len(titles), *map(cells_of, lines)]
    table = "\n".join("| " + " | ".join(each) + " |" for each in body) + "\n"
    return table + "".join(f"\n{text}\n" for text in differences(lines))


def as_terminal(name: str, lines: Sequence[dict[str, Any]]) -> str:
    """A table for people; columns in which nothing is known are left out."""
    from rich.console import Console
    from rich.table import Table

    texts = [cells_of(line) for line in lines]
    shown = [i for i in range(len(COLUMNS)) if any(text[i] for text in texts)]
    table = Table(title=f"{name}: top-1 on the test set in %, mean ± deviation over n runs")
    for i in shown:
        table.add_column(TITLES.get(COLUMNS[i], COLUMNS[i]), justify="right" if COLUMNS[i] in DIGITS else "left")
    for text in texts:
        table.add_row(*(text[i] for i in shown))
    console = Console(file=io.StringIO(), width=140)
    console.print(table)
    for difference in differences(lines):
        console.print(difference)
    return console.file.getvalue()  # type: ignore[attr-defined]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sept.tables", description=__doc__)
    parser.add_argument("table", help="a name from conf/table")
    parser.add_argument("overrides", nargs="*", help="as on the command line of the sweep, e.g. init=sept seed=0,1,2")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--csv", action="store_true", help="one line a comparison, for programs")
    forms.add_argument("--markdown", action="store_true")
    options = parser.parse_args(arguments)
    try:
        check_overrides(options.overrides)
        lines = rows(expand(options.table, options.overrides))
    except SeptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    shown = as_csv if options.csv else as_markdown if options.markdown else as_terminal
    print(shown(options.table, lines), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
