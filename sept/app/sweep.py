"""What the cells of a sweep do together before they start: one scan of a pool for the selections of several tasks."""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sept import capability
from sept.app import shared_memory
from sept.config import Experiment
from sept.errors import ConfigError, DataError, SeptError
from sept.pipeline import Pipeline
from sept.retrieval.settings import EXACT
from sept.runtime import failures
from sept.runtime.hardware import resolve
from sept.store import Step, Store


def require_store(cells: Sequence[Experiment]) -> None:
    """Reports once what would fail every cell: a damaged store, or a disk that cannot be written when a cell has to."""
    for e in cells:
        store = Store(e.store.root, force=e.store.force)
        with suppress(ConfigError, DataError):  # the cell will report it
            capability.require(e)
            if e.store.mode == "reuse" and store.missing(Pipeline(e, resolve(e.hardware)).run):
                store.require_writable()
                return


def share_scans(cells: Sequence[Experiment]) -> dict[tuple[str, ...], Any]:
    """Ranked lists for the tasks of a sweep, from one shared scan, for the pipelines of its cells; errors are left to
    the cells, which report them."""
    groups: dict[tuple[str, ...], dict[str, tuple[Step, Experiment]]] = defaultdict(dict)
    for e in cells:
        if e.searches and e.selector.name == "sept" and e.index.name in EXACT and e.store.mode == "reuse":
            with suppress(SeptError):  # the cell will report it
                capability.require(e)
                step = Pipeline(e, resolve(e.hardware)).selection
                if Store(e.store.root, mode="read-only").find(step) is None:
                    groups[_features(step)][step.key] = step, e
    lists: dict[tuple[str, ...], Any] = {}
    for group in groups.values():
        if len(group) > 1:
            lists |= _search([step for step, _ in group.values()], [*group.values()][-1][1])
    return lists


def _search(selections: Sequence[Step], e: Experiment) -> Mapping[tuple[str, ...], Any]:
    from sept.app.shared_search import prepare

    try:
        store, runtime = Store(e.store.root), resolve(e.hardware)
        shared_memory.require(e, runtime, [each for step in selections for each in store.missing(step)])
        with failures.translated():
            lists, tasks, images = prepare(selections, store, runtime)
    except SeptError:
        return {}
    if tasks > 1:
        print(f"one scan of {images:,} images for {tasks} tasks", file=sys.stderr)
    return lists


def _features(selection: Step) -> tuple[str, ...]:
    """Keys of the features that a selection searches."""
    return tuple(step.key for name, step in selection.inputs.items() if name.startswith("features"))
