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
        _warn(e, pipeline, store, missing)
        store.make(step)
    return pipeline, store


def _warn(e: Experiment, pipeline: Pipeline, store: Store, missing: Sequence[Step]) -> None:
    """Before a pre-training on images like the task's: a line if the retriever cannot tell them from the pool.

    Makes what the selection reads, where that is still to be made.
    """
    if not e.searches or store.mode != "reuse" or "pretrain" not in {step.stage for step in missing}:
        return
    read, wanted = [*pipeline.features, pipeline.queries], {step.key for step in missing}
    if any(step.key not in wanted and store.find(step) is None for step in read):
        return  # the selection is there, what it was made from is gone
    for step in read:
        store.make(step)
    from sept.app.advice import warn

    warn(e, pipeline, store)


def advice(e: Experiment) -> str:
    """Embeds the pool and the task's shots, and says whether a selection should pay: `advise=true`."""
    pipeline, store = make(e, lambda steps: [*steps.features, steps.queries], selection_only=True)
    from sept.app.advice import advise

    return advise(e, pipeline, store)
