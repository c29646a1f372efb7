"""From a checked experiment to what is made of it: the way of `train.py`, `search.py` and `sept.api` alike."""

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

STARTED = "SEPT_STARTED"  # when, in seconds since the epoch: the jobs of a launcher inherit it
READ = ("weights", "retriever")  # stages of files that may not fit their networks: read before all else


def make(
    e: Experiment,
    wanted: Callable[[Pipeline], Sequence[Step]],
    *,
    selection_only: bool = False,
    loggers: Loggers = no_loggers,
    ready: Mapping[tuple[str, ...], Any] | None = None,
) -> tuple[Pipeline, Store]:
    """Makes what is missing of the wanted steps, after the plan was printed to stderr; the steps can be read then.

    selection_only: no backbone is trained, so none is tried. loggers, ready: as of `Pipeline`. Raises SeptError in one
    line for what cannot be done, before any work where it can be known.
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
