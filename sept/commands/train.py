"""Runs an experiment, or a named table of them: `+experiment=food101_5shot budget=500k`.

The work is in `sept.pipeline`; this file loads the config, prints the plan, runs it and prints the row.
"""

import os

os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes its errors on, and we report them in one line

import logging
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sept import compose, config
from sept.app import console
from sept.app.making import STARTED, advice, make
from sept.errors import ConfigError, Interrupted
from sept.results import row
from sept.runtime import command, signals
from sept.runtime.hardware import no_loggers
from sept.runtime.lifeline import tie_to_parent

PROGRAM = "SEPT_PROGRAM"  # pid of the process that the user started, inherited too
Lists = Mapping[tuple[str, ...], Any]
failures: list[int] = []  # exit codes of the cells that failed


def cell(cfg: DictConfig, ready: Lists) -> None:
    """One cell that Hydra launches."""
    tie_to_parent(int(os.environ.get(PROGRAM, "0")))
    known = HydraConfig.get()
    here = known.runtime.choices["hydra/launcher"] == compose.BASIC  # other launchers run cells in other processes
    failed = attempt(lambda: run(compose.load(cfg, expanded=known.mode == RunMode.MULTIRUN), ready))
    if failed is not None and not here:
        raise failed  # Hydra passes it to `main` when the others are done


def attempt(one: Callable[[], object]) -> Exception | None:
    """One cell. A failure is reported, and in a sweep the next cell runs; the program exits with the highest code."""
    try:
        with signals.raising():  # other processes do not go through `main`
            one()
    except Interrupted as stop:
        sys.exit(command.report_error(stop))
    except Exception as error:
        failures.append(command.report_error(error))
        return error
    return None


def composed(overrides: list[str], expanded: bool) -> None:
    run(compose.experiment(overrides, expanded))


def run(e: config.Experiment, ready: Lists | None = None) -> dict | None:
    """Makes what is missing for the experiment; returns its row; None for plan or advice. ready: see `share_scans`."""
    if e.plan:
        from sept.app.plan import plan

        print(plan("this run", [e]))
        return None
    if e.export is not None:
        raise ConfigError("export=FOLDER is for search.py, which stops at the selection")
    if e.advise:
        print(advice(e))
        return None
    if e.logger.name == "wandb":
        from sept import tracking

        loggers, conclude = tracking.follow(e), tracking.conclude
    else:
        loggers, conclude = no_loggers, lambda row: None
    pipeline, store = make(e, lambda steps: [steps.run], loggers=loggers, ready=ready)
    done = row(e, pipeline.run, store, pipeline.untrained)
    assert done is not None
    conclude(done)
    console.print_row(e, done, pipeline.run, store)
    return done


def main() -> None:
    if {"-h", "--help"} & {*sys.argv}:
        print(compose.usage("train", __doc__.splitlines()[0]))
        return
    os.environ |= {STARTED: str(time.time()), PROGRAM: str(os.getpid())}
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with signals.raising():
            work(sys.argv[1:])
    except (Exception, Interrupted) as error:
        sys.exit(command.report_error(error))
    if failures:
        sys.exit(max(failures))


def work(arguments: list[str]) -> None:
    """Runs every cell of the command line, and prints their table."""
    compose.check_overrides(arguments)
    compose.check_hydra(arguments)
    asked = compose.asked(arguments)
    if asked.table is not None:
        sweep(arguments, asked.table, asked)
    elif asked.by_hydra:
        launch(arguments, {})
    else:
        for overrides in asked.cells:
            attempt(partial(composed, overrides, asked.expanded))


def sweep(arguments: list[str], table: str, asked: compose.Asked) -> None:
    """The cells of a table, then the table."""
    from sept import tables
    from sept.app.plan import plan
    from sept.app.sweep import require_store, share_scans
    from sept.tracking import send_table

    cells = [compose.experiment(overrides, expanded=True) for overrides in asked.cells]
    if cells[0].plan:
        print(plan(table, cells))
        return
    require_store(cells)
    ready = share_scans(cells) if asked.here else {}  # other processes would have to be sent them
    if asked.by_hydra:
        try:
            launch(arguments, ready)
        except Exception as error:
            failures.append(command.report_error(error))
            if asked.here:  # else it is a cell's in another process; the table shows what became of the others
                return
    else:
        for number, e in enumerate(cells):
            print(f"cell {number + 1} of {len(cells)}", file=sys.stderr)
            attempt(partial(run, e, ready))
    tables.tell(table, cells, send_table)


def launch(arguments: list[str], ready: Lists) -> None:
    """Runs every cell of the command line, launched by Hydra."""
    compose.hand_over(arguments)

    @hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="config")
    def each(cfg: DictConfig) -> None:
        cell(cfg, ready)

    with compose.one_line():
        each()
