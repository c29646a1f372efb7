"""Building blocks of a self-contained HTML page: everything escaped, nothing loaded, no scripts."""

import html
from collections.abc import Sequence

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .5rem; padding-top: .75rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
h4 { font-size: .95rem; margin: 1.5rem 0 .25rem; }
p { margin: .4rem 0; max-width: 60rem; }
nav a { margin-right: 1rem; }
a { color: inherit; text-decoration-color: #8888; text-underline-offset: 2px; }
:target { background: #e69f0033; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; white-space: nowrap; }
thead tr:last-child th, th[rowspan] { border-bottom: 1px solid currentColor; }
thead th { font-weight: 600; vertical-align: bottom; white-space: normal; }
tbody tr { border-bottom: 1px solid var(--line); }
tbody th { font-weight: normal; }
.number { text-align: right; font-variant-numeric: tabular-nums; padding-left: .75rem; }
thead th.over { text-align: center; border-bottom: none; padding-left: .75rem; }
small, .quiet, figcaption { color: color-mix(in srgb, currentColor 65%, transparent); font-size: 12.5px; }
td small { display: block; }
tr.noise td, tr.noise th { color: color-mix(in srgb, currentColor 65%, transparent); }
tr.total { font-weight: 600; }
figure { margin: 1rem 0 1.5rem; }
figure svg { max-width: 100%; height: auto; }
.strip { display: flex; flex-wrap: wrap; gap: .4rem; align-items: flex-end; margin: .4rem 0; }
.strip figure { margin: 0; text-align: center; }
.strip figure.query { margin-right: .75rem; }
.strip figure.query img { outline: 3px solid #0072b2; outline-offset: -3px; }
.strip figcaption { font-size: 11px; line-height: 1.3; }
pre { background: var(--soft); padding: .5rem .75rem; margin: .3rem 0; overflow-x: auto; font-size: 12.5px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; }
"""

escape = html.escape


def page(title: str, parts: Sequence[str]) -> str:
    """A complete document in UTF-8."""
    heading = escape(title)
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>',
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
            f"<h1>{heading}</h1>",
            *parts,
            "</body></html>\n",
        ]
    )


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text; empty for empty text."""
    return f"<p{_class(kind)}>{escape(text)}</p>" if text else ""


def grid(
    titles: Sequence[str], lines: Sequence[Sequence[str]], numbers: Sequence[int], rows: Sequence[str] = ()
) -> str:
    """A table of plain text; numbers: right-aligned columns; rows: a CSS class for each row."""
    head = "".join(_cell("th", escape(text), column in numbers) for column, text in enumerate(titles))
    body = []
    for place, line in enumerate(lines):
        cells = "".join(_cell("td", escape(text), column in numbers) for column, text in enumerate(line))
        body.append(f"<tr{_class(rows[place] if rows else '')}>{cells}</tr>")
    return wide(f"<thead><tr>{head}</tr></thead>", body)


def wide(head: str, body: Sequence[str]) -> str:
    """A table that scrolls horizontally in a narrow window."""
    lines = "\n".join(body)
    return f'<div class="wide"><table>{head}<tbody>\n{lines}\n</tbody></table></div>'


def folded(summary: str, content: str, opened: bool = False) -> str:
    """Content that opens with a click."""
    return f"<details{' open' if opened else ''}><summary>{escape(summary)}</summary>\n{content}\n</details>"


def _cell(tag: str, inner: str, number: bool) -> str:
    return f"<{tag}{_class('number' if number else '')}>{inner}</{tag}>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
