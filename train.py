"""Runs an experiment, or a named table of them: `python train.py +experiment=food101_5shot budget=500k`."""

# The work is in `sept.pipeline`; this file loads the config, says what will be done, does it and prints the row.

import os

from sept.runtime import signals

if __name__ == "__main__":  # not where a data worker imports this file
    signals.end_program()

os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands on what it refuses, and it is told in one line

import sys
import time
from collections.abc import Mapping
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sept import capability, compose, config, tables
from sept.app import command, console, shared_memory
from sept.app.plan import plan
from sept.app.sweep import require_store, share_scans
from sept.errors import Interrupted
from sept.pipeline import Pipeline
from sept.results import row
from sept.runtime.hardware import resolve
from sept.runtime.lifeline import tie_to_parent
from sept.store import Store
from sept.tracking import conclude, follow

STARTED = "SEPT_STARTED"  # when, in seconds since the epoch: the jobs of a launcher inherit it
PROGRAM = "SEPT_PROGRAM"  # the number of the process that a person started, likewise
Lists = Mapping[tuple[str, ...], Any]
failures: list[int] = []  # exit codes of the cells that failed


def cell(cfg: DictConfig, ready: Lists) -> None:
    """One cell. A failure is told, and in a sweep the next cell runs; the program ends with the highest exit code."""
    tie_to_parent(int(os.environ.get(PROGRAM, "0")))
    known = HydraConfig.get()
    here = known.launcher._target_.endswith(compose.BASIC)  # other launchers run cells in other processes
    try:
        with signals.raising():  # in other processes `main` is not there
            run(compose.load(cfg, expanded=known.mode == RunMode.MULTIRUN), ready)
    except Interrupted as stop:
        sys.exit(command.told(stop))
    except Exception as error:
        failures.append(command.told(error))
        if not here:
            raise  # Hydra hands it to `main`, once the others are done


def run(e: config.Experiment, ready: Lists | None = None) -> dict | None:
    """Make what is missing for the experiment; gives its row, or None for a plan. ready: see `share_scans`."""
    if e.plan:
        print(plan("this run", [e]))
        return None
    capability.require(e)
    capability.require_packages(e)
    pipeline = Pipeline(e, resolve(e.hardware), loggers=follow(e), ready=ready)
    since = float(os.environ.get(STARTED, time.time()))
    step, store = pipeline.run, Store(e.store.root, e.store.mode, e.store.force, since)
    console.print_plan(step, store)
    shared_memory.require(e, pipeline.runtime, store.missing(step))
    store.make(step)
    done = row(e, step, store)
    assert done is not None
    conclude(done)
    console.print_row(e, done, step, store)
    return done


def main() -> None:
    if {"-h", "--help"} & {*sys.argv}:
        print(compose.usage("train.py", __doc__.strip()))
        return
    sys.argv[1:] = compose.renamed(sys.argv[1:])
    os.environ |= {STARTED: str(time.time()), PROGRAM: str(os.getpid())}
    table = next((text.partition("=")[2] for text in sys.argv[1:] if text.startswith("+table=")), None)
    try:
        with signals.raising():
            compose.check_overrides(sys.argv[1:])
            compose.register()
            compose.check_hydra(sys.argv[1:])
            if table is None:
                launch({})
            else:
                sweep(table, [text for text in sys.argv[1:] if "=" in text and not text.startswith(("-", "+table="))])
    except (Exception, Interrupted) as error:
        sys.exit(command.told(error))
    if failures:
        sys.exit(max(failures))


def launch(ready: Lists) -> None:
    """Every cell that the command line stands for."""

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def each(cfg: DictConfig) -> None:
        cell(cfg, ready)

    with compose.one_line():
        each()


def sweep(table: str, narrowed: list[str]) -> None:
    """The cells of a table, then the table."""
    cells = compose.expand(table, narrowed)
    if cells[0].plan:
        print(plan(table, cells))
        return
    require_store(cells)
    alone = compose.in_one_process(table, narrowed)
    ready = share_scans(cells) if alone else {}  # other processes would be sent them
    try:
        launch(ready)
    except Exception as error:
        failures.append(command.told(error))
        if alone:  # else: of a cell in another process; the table shows what became of the others
            return
    tables.tell(table, cells)


if __name__ == "__main__":
    command.run(main)
