"""A table as text: for the terminal, as CSV for programs, as Markdown."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sept.results import CELL, METRICS
from sept.tables import labels
from sept.tables.labels import Line
from sept.tables.statistics import Difference, differences

Tables = Mapping[str, Sequence[Line]]
"""Rows by the name of their table."""

SCORES = ("mean", "std", "frozen_mean", "frozen_std", "probe_mean", "probe_std", "ap_mean", "ap50_mean", "ap75_mean")
GAIN = ("gain", "gain_low", "gain_high", "within_noise")
ENERGY = ("kwh", "shared_kwh", "co2e_kg", "shared_co2e_kg")
SECONDS = ("wall_s", "shared_wall_s", "cpu_s", "gpu_s")
COSTS = ("images", "pool_images", "flops", "shared_flops", *SECONDS, *ENERGY)
AGAINST = ("chance", "floor")
LAST = ("paper", "remarks", "status", "reason")
COLUMNS = (*CELL, "variant", "annotation", "metric", "n", "seeds", *SCORES, *AGAINST, *GAIN, *COSTS, *LAST)
DIGITS = dict.fromkeys((*SCORES, *AGAINST, *GAIN[:3]), ".2f") | {"flops": ".2e", "shared_flops": ".2e"}
DIGITS |= dict.fromkeys((*SECONDS, "images", "pool_images"), ".0f") | dict.fromkeys(ENERGY, ".3g")
MEASURED: dict[str, Callable[[Line], str]] = {
    "runs": labels.over,
    "frozen": lambda line: labels.spread(line, "frozen_mean", "frozen_std"),
    "probe": lambda line: labels.spread(line, "probe_mean", "probe_std"),
    "AP": lambda line: labels.spread(line, "ap_mean"),
    "AP50": lambda line: labels.spread(line, "ap50_mean"),
    "AP75": lambda line: labels.spread(line, "ap75_mean"),
    "annotation": labels.format_annotation,
    "images": labels.format_images,
    "over random": labels.format_gain,
    "floor": lambda line: labels.spread(line, "floor"),
    "remarks": lambda line: line["remarks"],
    "paper": lambda line: "" if line["paper"] is None else f"{line['paper']:.2f}",
    "FLOPs": lambda line: "" if line.get("flops") is None else f"{line['flops']:.2e}",
    "wall s": lambda line: "" if line.get("wall_s") is None else f"{line['wall_s']:.0f}",
    "status": lambda line: line["status"],
}
LEFT = (*labels.CHOICES, "runs", "annotation", "remarks", "status", "difference", "where", "verdict", "pairs")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # characters that start a formula in a spreadsheet
TERMINAL_WIDTH = 160
DIFFERENCES = 24  # at most shown in a terminal


def cells_of(line: Line) -> list[str]:
    """A row's COLUMNS as text; empty for missing values."""
    texts = []
    for name in COLUMNS:
        value = line.get(name)
        texts.append("" if value is None else format(value, DIGITS[name]) if name in DIGITS else str(value))
    return texts


def never_raise(text: str) -> str:
    """Text that a spreadsheet would evaluate, with a quote in front so that it does not; numbers are unchanged."""
    if not text.startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def as_csv(tables: Tables) -> str:
    """One line per comparison, below a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("table", *COLUMNS))
    writer.writerows(
        [never_raise(text) for text in (name, *cells_of(line))] for name, lines in tables.items() for line in lines
    )
    return text.getvalue()


def format_lines(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Titles and texts for people: choices that vary, then the measures that exist."""
    names, score = labels.varying_choices(lines), labels.metric(lines)
    measured = {score: lambda line: labels.spread(line, "mean", "std"), "runs": MEASURED["runs"]}
    if score == "score":
        measured["measure"] = lambda line: METRICS.get(line["metric"], line["metric"] or "")
    measured |= {title: text for title, text in MEASURED.items() if title not in measured}
    texts = {title: [text(line) for line in lines] for title, text in measured.items()}
    known = {title: column for title, column in texts.items() if any(column)}
    body = [[labels.cell(name, line[name]) for name in names] for line in lines]
    right = zip(*known.values(), strict=True)
    return [*names, *known], [[*chosen, *found] for chosen, found in zip(body, right, strict=True)]


def compared(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Titles and texts of the differences between rows."""
    names = labels.varying_choices(lines)
    return ["difference", "where", labels.metric(lines), f"{labels.PERCENT} interval", "verdict", "pairs"], [
        _difference(found, names) for found in differences(lines)
    ]


def _difference(found: Difference, names: Sequence[str]) -> list[str]:
    over = found.interval
    return [
        labels.describe_subject(found),
        labels.where(found, names),
        labels.signed(over.mean),
        labels.bounds(over.low, over.high),
        labels.verdict(found),
        labels.pairs(found),
    ]


def as_markdown(tables: Tables) -> str:
    """A heading, the table and its differences, for each name."""
    parts = []
    for name, lines in tables.items():
        parts += [f"## {labels.title(name, lines)}", labels.describe_shared(lines), _pipes(*format_lines(lines))]
        for each in labels.method_grids(lines):
            parts += [f"{each.title}, by method:", _pipes(each.heads, each.rows)]
        titles, texts = compared(lines)
        parts += [*labels.explained(lines), *labels.reasons(lines), _pipes(titles, texts) if texts else ""]
        parts += labels.notes(name, lines)
    return "\n\n".join(part for part in parts if part) + "\n"


def _pipes(titles: Sequence[str], texts: Sequence[Sequence[str]]) -> str:
    rule = ["---" if title in LEFT else "---:" for title in titles]
    escaped = [[text.replace("|", "\\|") for text in line] for line in texts]
    return "\n".join("| " + " | ".join(line) + " |" for line in [titles, rule, *escaped])


def as_terminal(tables: Tables) -> str:
    """Tables for people; shared choices are printed once."""
    from rich.console import Console

    text = io.StringIO()
    console = Console(file=text, width=TERMINAL_WIDTH)
    for name, lines in tables.items():
        _print(console, labels.title(name, lines), *format_lines(lines))
        for told in (labels.describe_shared(lines), *labels.explained(lines), *labels.reasons(lines)):
            console.print(told, markup=False, highlight=False)
        titles, texts = compared(lines)
        if len(texts) > DIFFERENCES:
            console.print(
                f"{len(texts)} differences between rows: --markdown or --html FILE shows them", highlight=False
            )
        elif texts:
            _print(console, "differences, paired by seeds", titles, texts)
        for told in labels.notes(name, lines):
            console.print(told, markup=False, highlight=False, soft_wrap=True)
    return text.getvalue()


def _print(console: Any, title: str, titles: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for each in titles:
        table.add_column(each, justify="left" if each in LEFT else "right")
    for line in texts:
        table.add_row(*map(Text, line))
    console.print(table)
