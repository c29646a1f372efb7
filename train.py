"""Runs an experiment, or a named table of them: `python train.py +experiment=food101_5shot budget=500k`.

The work is in `sept.pipeline`; this file loads the config, says what will be done, does it and prints the row.
"""

import os

os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands on what it refuses, and it is told in one line

import sys
import traceback

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sept import compose, config, console
from sept.errors import Interrupted, SeptError
from sept.machine import resolve
from sept.pipeline import Pipeline
from sept.plan import plan
from sept.results import row
from sept.signals import raising
from sept.store import Store
from sept.tracking import loggers

failures: list[int] = []  # exit codes of the cells that failed


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def cell(cfg: DictConfig) -> None:
    """One cell. A failure is told, and in a sweep the next cell runs; the program ends with the highest exit code."""
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        run(compose.load(cfg, expanded=sweep))
    except Interrupted as stop:
        sys.exit(_told(stop))
    except SeptError as error:
        failures.append(_told(error))
    except Exception:
        traceback.print_exc()
        failures.append(SeptError.exit_code)


def run(e: config.Experiment) -> dict | None:
    """Make what is missing for the experiment; gives its row, or None for a plan."""
    with raising():
        pipeline = Pipeline(e, resolve(e.hardware, loggers(e.logger)))
        step, store = pipeline.run(), Store(e.store.root, e.store.mode, e.store.force)
        console.tell_plan(step, store)
        if e.plan:
            return None
        store.make(step)
    done = row(e, step, store)
    assert done is not None
    console.tell_row(done, step, store)
    return done


def _told(error: SeptError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def main() -> None:
    table = next((text.partition("=")[2] for text in sys.argv[1:] if text.startswith("+table=")), None)
    narrowed = [text for text in sys.argv[1:] if "=" in text and not text.startswith("+table=")]
    try:
        compose.check_overrides(sys.argv[1:])
        if table is not None and "plan=true" in map(str.lower, sys.argv):
            print(plan(table, compose.expand(table, narrowed)))
            return
        compose.register()
        with compose.one_line():
            cell()
    except SeptError as error:
        sys.exit(_told(error))
    if table is not None:
        from sept import tables

        tables.main([table, *narrowed])
    if failures:
        sys.exit(max(failures))


if __name__ == "__main__":
    main()
