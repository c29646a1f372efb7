"""Makes what a checked experiment asks for: shared by `train.py`, `search.py` and `sept.api`."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sept import capability
from sept.app import console, shared_memory
from sept.config import Experiment
from sept.pipeline import Pipeline
from sept.runtime.hardware import Loggers, no_loggers, resolve
from sept.store import Step, Store

STARTED = "SEPT_STARTED"  # start time, seconds since the epoch; inherited by the jobs of a launcher
READ = ("weights", "retriever")  # stages that read files, which may not fit their networks: they run first


def make(
    e: Experiment,
    wanted: Callable[[Pipeline], Sequence[Step]],
    *,
    selection_only: bool = False,
    loggers: Loggers = no_loggers,
    ready: Mapping[tuple[str, ...], Any] | None = None,
) -> tuple[Pipeline, Store]:
    """Prints the plan to stderr, then makes what is missing of the wanted steps, so that they can be read.

    selection_only: no backbone is trained, so none is tested. loggers, ready: as for `Pipeline`. Raises SeptError with
    a one-line message for what cannot be done, before any work where possible.
    """
    capability.require(e, selection_only)
    capability.require_packages(e, selection_only)
    pipeline = Pipeline(e, resolve(e.hardware), loggers=loggers, ready=ready)
    since = float(os.environ.get(STARTED, time.time()))
    store = Store(e.store.root, e.store.mode, e.store.force, since)
    for step in wanted(pipeline):
        console.print_plan(step, store)
        missing = store.missing(step)
        shared_memory.require(e, pipeline.runtime, missing)
        for each in missing if store.mode == "reuse" else []:
            if each.stage in READ and not each.inputs:
                store.make(each)
        store.make(step)
    return pipeline, store
