"""`python -m sept.tables NAME`: named sweeps rendered from the store, at any time; missing cells are blank.

With `logger=wandb` each table is also sent as a `wandb.Table`.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from sept.compose import MULTIRUN, check_overrides, expand
from sept.errors import ConfigError, SeptError
from sept.paths import path
from sept.runtime import command
from sept.tables.rows import rows
from sept.tables.text import Tables, as_csv, as_markdown, as_terminal
from sept.tracking import send_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables, or writes the report, and returns the exit code."""
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    options = _parser().parse_intermixed_args([text for text in given if text not in MULTIRUN])
    overrides = [text for text in options.named if "=" in text or text.startswith("~")]
    names = list(dict.fromkeys(text for text in options.named if text not in overrides))
    try:
        _require_names(given, names)
        check_overrides(overrides)
        tables = {}
        for name in names:
            cells = expand(name, overrides)
            tables[name] = rows(cells)
            send_table(name, cells, tables[name])
        if options.html:
            from sept.tables.report import write_report

            write_report(options.html, tables)
            print(f"report: {options.html}")
        else:
            print(options.form(tables), end="")
    except SeptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _require_names(given: Sequence[str], names: Sequence[str]) -> None:
    """Refuses a command line for train.py, and one that names no table."""
    flag = next((text for text in given if text in MULTIRUN), None)
    if flag:
        raise ConfigError(f"{flag}: leave it out; a table is read for all values that are given, as in seed=0,1,2")
    asked = next((text for text in given if text.lstrip("+").startswith("table=")), None)
    if asked:
        raise ConfigError(f"{asked}: write python -m sept.tables {asked.partition('=')[2]}")
    if not names:
        raise ConfigError("which table? name one or more from conf/table")


def _as_latex(tables: Tables) -> str:
    from sept.tables.latex import as_latex

    return as_latex(tables)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sept.tables", description=__doc__)
    parser.add_argument(
        "named",
        nargs="+",
        metavar="NAME | KEY=VALUE",
        help="tables from conf/table, and overrides as on the sweep's command line, e.g. init=sept seed=0,1,2",
    )
    forms = parser.add_mutually_exclusive_group()
    parser.set_defaults(form=as_terminal)
    described: dict[str, tuple[Callable[[Tables], str], str]] = {
        "--csv": (as_csv, "one line per comparison, for programs"),
        "--markdown": (as_markdown, "the table and the differences between its rows"),
        "--latex": (_as_latex, "in the layout of the paper, with booktabs"),
    }
    for flag, (form, text) in described.items():
        forms.add_argument(flag, dest="form", action="store_const", const=form, help=text)
    forms.add_argument("--html", type=path, metavar="FILE", help="a report: tables, differences, figures, costs, runs")
    return parser


if __name__ == "__main__":
    command.run(main)
