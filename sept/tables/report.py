"""The report: one self-contained page, from the tables down to the runs behind each number."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sept.costs.bill import assumed, of_runs
from sept.costs.bill import grid as bill_grid
from sept.results import MEANING, METRICS
from sept.store.disk import storage_errors
from sept.store.step import KEY_CHARS
from sept.tables import labels
from sept.tables.charts import charts
from sept.tables.html import escape, folded, grid, page, paragraph, wide
from sept.tables.labels import Line, Matrix, matrix
from sept.tables.statistics import differences
from sept.tables.text import Tables, compared

SHORT = 24  # up to this many differences are shown unfolded
ABOUT = (
    "Numbers are means ± standard deviations, over seeds, each of which draws labelled images, selects and pre-trains "
    "anew; fine-tunings of one seed are averaged first. With a single seed they are over its fine-tunings alone. Below "
    "each is the paper's number for the same comparison, if it has one. Each number links to its runs, with the "
    "command that reproduces each of them."
)
NOISE = (
    f"Runs with the same seeds are paired; intervals are Student's t at {labels.PERCENT} each, without "
    "correction for multiple comparisons. A difference whose interval contains 0 is within noise."
)


def write_report(path: Path, tables: Tables) -> None:
    """Replaces the file at `path` atomically. Raises StorageError if it cannot be written."""
    from sept.retrieval.shards import publish

    text = report(tables)
    with storage_errors(path):
        publish(path, lambda file: file.write(text.encode("utf-8", errors="backslashreplace")))


def report(tables: Tables) -> str:
    """The page as text."""
    links = [f'<a href="#{escape(name)}">{escape(name)}</a>' for name in tables]
    parts = [paragraph(ABOUT), f'<nav>{"".join(links)}<a href="#runs">runs</a></nav>']
    for name, lines in tables.items():
        parts += _table(name, lines)
    parts += ['<h2 id="runs">Runs</h2>']
    for name, lines in tables.items():
        for place, line in enumerate(lines):
            parts += _runs(name, place, line)
    return page(f"sept: {', '.join(tables)}", parts)


def _table(name: str, lines: Sequence[Line]) -> Iterator[str]:
    finished, wanted = sum(bool(line["n"]) for line in lines), len(lines)
    yield f'<h2 id="{escape(name)}">{escape(name)}</h2>'
    yield paragraph(f"{labels.metric(lines)} on the test set in %. {labels.describe_shared(lines)}")
    if finished < wanted:
        yield paragraph(f"{finished} of {wanted} comparisons have finished runs.")
    for meaning in labels.explained(lines):
        yield paragraph(meaning)
    for reason in labels.reasons(lines):
        yield paragraph(reason, "quiet")
    yield _matrix(name, lines, matrix(lines))
    for each in labels.method_grids(lines):
        yield f"<h3>{escape(each.title)}, by method</h3>"
        yield grid(each.heads, each.rows, range(1, len(each.heads)))
    for note in labels.notes(name, lines):
        yield paragraph(note)
    yield from _differences(lines)
    yield from _figures(name, lines)
    yield from _costs(lines)
    yield from _galleries(lines)


def _matrix(name: str, lines: Sequence[Line], layout: Matrix) -> str:
    body = []
    for way, values in enumerate(layout.ways):
        told = zip(layout.names, values, strict=True)
        cells = [f"<th>{escape(labels.cell(each, value))}</th>" for each, value in told]
        for column in range(len(layout.columns)):
            place = layout.cells.get((way, column))
            cells.append('<td class="number"></td>' if place is None else _entry(name, place, lines[place]))
        body.append(f"<tr>{''.join(cells)}</tr>")
    return wide(_heads(layout), body)


def _heads(layout: Matrix) -> str:
    """The header rows: tasks, each above its numbers of shots if those vary."""
    several = len({shot for _, shot in layout.columns}) > 1
    names = "".join(f'<th rowspan="{1 + several}">{escape(each)}</th>' for each in layout.names)
    if not several:
        tasks = "".join(f'<th class="number">{escape(task)}</th>' for task, _ in layout.columns)
        return f"<thead><tr>{names}{tasks}</tr></thead>"
    over = "".join(f'<th class="over" colspan="{width}">{escape(task)}</th>' for task, width in layout.spans())
    shots = "".join(
        f'<th class="number">{escape(labels.format_choice("shot", shot))}</th>' for _, shot in layout.columns
    )
    return f"<thead><tr>{names}{over}</tr><tr>{shots}</tr></thead>"


def _entry(name: str, place: int, line: Line) -> str:
    """One number, a link to its runs, above its qualifiers and the paper's number."""
    ours = labels.spread(line, "mean", "std") or "–"
    remarks = line["remarks"].split(", ") if line["remarks"] else []
    below = [text for text in (labels.over(line), *remarks, line["status"]) if text]
    below += [f"paper {line['paper']:.2f}"] if line["paper"] is not None else []
    notes = "".join(f"<small>{escape(text)}</small>" for text in below)
    return f'<td class="number"><a href="#{_anchor(name, place)}">{ours}</a>{notes}</td>'


def _anchor(name: str, place: int) -> str:
    return escape(f"{name}-{place + 1}")


def _differences(lines: Sequence[Line]) -> Iterator[str]:
    titles, texts = compared(lines)
    if not texts:
        return
    yield "<h3>Differences</h3>"
    yield paragraph(NOISE, "quiet")
    noise = ["" if found.interval.within_noise is False else "noise" for found in differences(lines)]
    yield folded(f"{len(texts)} differences", grid(titles, texts, (2, 3), noise), opened=len(texts) <= SHORT)


def _figures(name: str, lines: Sequence[Line]) -> Iterator[str]:
    drawn = charts(lines)
    if not drawn:
        return
    from sept.tables.figures import draw

    yield "<h3>Figures</h3>"
    for chart in drawn:
        caption = f"<b>{escape(chart.title)}.</b> {escape(chart.caption)}"
        yield f"<figure>{draw(chart, name)}<figcaption>{caption}</figcaption></figure>"


def _costs(lines: Sequence[Line]) -> Iterator[str]:
    """The costs of one run per comparison, and of all runs of the table, each artefact counted once."""
    finished = [line for line in lines if line["n"]]
    if not finished:
        return
    names = labels.varying_choices(lines)
    titles = [*names, "own FLOPs", "own s", "shared FLOPs", "shared s"]
    texts = [
        [labels.cell(name, line[name]) for name in names]
        + [f"{line['flops']:.2e}", f"{line['wall_s']:,.0f}"]
        + [f"{line['shared_flops']:.2e}", f"{line['shared_wall_s']:,.0f}"]
        for line in finished
    ]
    yield "<h3>Costs</h3>"
    yield paragraph(
        "Per run. Own: its selection, pre-training and fine-tuning. Shared: computed once per pool or task, "
        "however many runs use it (retriever, embedding of the pool, index).",
        "quiet",
    )
    yield folded("by comparison", grid(titles, texts, range(len(names), len(titles))), opened=len(texts) <= SHORT)
    carbon = finished[0]["cell"].carbon
    made = [each for line in finished for run in line["runs"] for each in run["artefacts"]]
    titles, *bill = bill_grid(of_runs(made, carbon), carbon)
    yield "<h4>All runs of this table, each artefact once</h4>"
    yield grid(titles, bill, range(1, len(titles)), ["" for _ in bill[:-1]] + ["total"])
    yield paragraph(assumed(carbon), "quiet")


def _galleries(lines: Sequence[Line]) -> Iterator[str]:
    """Pictures of one selection per comparison; a larger budget begins with the same images."""
    from sept.tables.pictures import strips

    seen, shown = set(), []
    names = [name for name in labels.varying_choices(lines) if name != "budget"]
    for line in lines:
        choices = tuple(line[name] for name in labels.CHOICES if name != "budget")
        if line["pool"] is None or not line["experiments"] or choices in seen:
            continue
        seen.add(choices)
        shown += [
            f"<h4>{escape(labels.label(line, names))}</h4>" + "".join(_strip(each) for each in found)
            for found in [strips(line["experiments"][0])]
            if found
        ]
    if shown:
        yield "<h3>Selections</h3>"
        yield paragraph(
            "From the first run of each. Framed: a labelled image of the task; then the images it selected.", "quiet"
        )
        yield folded(f"{len(shown)} selections", "\n".join(shown), opened=len(shown) <= SHORT)


def _strip(strip: Any) -> str:
    from sept.tables.pictures import picture

    def figure(image: Any, caption: str, kind: str = "") -> str:
        source, told = picture(image), f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        return f'<figure{kind}><img alt="{escape(caption or strip.label)}" src="{source}">{told}</figure>'

    query = [] if strip.query is None else [figure(strip.query, "query", ' class="query"')]
    chosen = [figure(image, "" if similarity is None else f"{similarity:.3f}") for image, similarity in strip.chosen]
    return f'<div class="strip" title="{escape(strip.label)}">{"".join([*query, *chosen])}</div>'


def _runs(name: str, place: int, line: Line) -> Iterator[str]:
    """The entry that a number links to."""
    from sept.overrides import command

    told = labels.label(line, labels.CHOICES)
    yield f'<section id="{_anchor(name, place)}"><h4>{escape(name)}: {escape(told)}</h4>'
    yield paragraph(": ".join(text for text in (line["status"], line["reason"]) if text))
    score = METRICS.get(line["metric"], line["metric"])
    for run, e in zip(line["runs"], line["experiments"], strict=True):
        facts = (
            f"{score} {run['score']:.2f} · seed {run['seed']}, fine-tuning seed {run['finetune_seed']} · "
            f"{run['flops']:.2e} FLOPs, {run['wall_s']:,.0f} s · {run['status']} · commit {_commit(run['commit'])}"
        )
        yield paragraph(facts)
        for remark in run["remarks"]:
            yield paragraph(f"{remark}: {MEANING[remark]}")
        yield f"<pre>{escape(command(e))}</pre>"
        listed = [[each["path"], "shared" if each["shared"] else "own"] for each in run["artefacts"]]
        yield folded(
            f"key {run['key'][:KEY_CHARS]}: {len(listed)} artefacts in the store", grid(["path", ""], listed, ())
        )
    yield "</section>"


def _commit(commit: Mapping[str, Any] | None) -> str:
    """The commit of the code that made the result."""
    if commit is None:
        return "unknown"
    return f"{commit['sha'][:12]}{' with changes' if commit['dirty'] else ''}"
