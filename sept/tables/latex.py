r"""A table as LaTeX with booktabs: \usepackage{booktabs}; \resizebox needs graphicx."""

from collections.abc import Sequence

from sept.tables import labels
from sept.tables.labels import Line, Matrix, matrix
from sept.tables.text import Tables

SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$"}
SPECIAL |= {character: f"\\{character}" for character in "&%$#_{}"}
DASH = "--"


def escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(SPECIAL.get(character, character) for character in text)


def as_latex(tables: Tables) -> str:
    """A floating table for each name, at most as wide as the text."""
    return "\n".join(_table(name, lines) for name, lines in tables.items())


def _table(name: str, lines: Sequence[Line]) -> str:
    layout = matrix(lines)
    left, right = "l" * len(layout.names), "r" * len(layout.columns)
    body = [_entries(layout, way, lines) for way in range(len(layout.ways))]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_caption(name, lines)}}}",
            rf"\label{{tab:{''.join(c if c.isalnum() else '-' for c in name)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{left}{right}}}",
            r"\toprule",
            *_heads(layout),
            r"\midrule",
            *(f"{' & '.join(entries)} \\\\" for entries in body),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def _caption(name: str, lines: Sequence[Line]) -> str:
    over = labels.same_over(lines) or "as marked"
    told = f"{labels.title(name, lines)} over {over}; the paper's in parentheses."
    return escape(" ".join(text for text in (told, labels.describe_shared(lines), *labels.notes(name, lines)) if text))


def _heads(layout: Matrix) -> list[str]:
    """The header rows: tasks, each above its shots if a task has several or the number varies."""
    shots = [str(shot) for _, shot in layout.columns]
    names = [escape(name) for name in layout.names]
    if len(set(shots)) == 1:
        return [f"{' & '.join([*names, *(escape(task) for task, _ in layout.columns)])} \\\\"]
    over = [rf"\multicolumn{{{width}}}{{c}}{{{escape(task)}}}" for task, width in layout.spans()]
    under = [escape(labels.format_choice("shot", shot)) for _, shot in layout.columns]
    return [f"{' & '.join([*[''] * len(names), *over])} \\\\", f"{' & '.join([*names, *under])} \\\\"]


def _entries(layout: Matrix, way: int, lines: Sequence[Line]) -> list[str]:
    same = labels.same_over(lines) is not None
    choices = zip(layout.names, layout.ways[way], strict=True)
    entries = [escape(labels.cell(name, value)) for name, value in choices]
    for column in range(len(layout.columns)):
        place = layout.cells.get((way, column))
        entries.append("" if place is None else _entry(lines[place], same))
    return entries


def _entry(line: Line, same: bool) -> str:
    """Our number, and the paper's if it has one."""
    ours = labels.spread(line, "mean", "std").replace("±", r"\pm")
    count = "" if same or not line["n"] else rf"\,{{\scriptsize {labels.over(line)}}}"
    paper = "" if line["paper"] is None else f" ({line['paper']:.2f})"
    return (f"${ours}${count}" if ours else DASH) + paper
