"""What the cells of a sweep do together before they start: one scan of a pool for the selections of several tasks."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from sept.config import EXACT, Experiment
from sept.errors import Interrupted, SeptError
from sept.machine import resolve
from sept.pipeline import Pipeline
from sept.store import Step, Store


def share_scans(cells: Sequence[Experiment]) -> None:
    """Search for the tasks of a sweep together; what cannot be done is left to the cells, which tell why."""
    groups: dict[tuple[str, ...], dict[str, tuple[Step, Experiment]]] = defaultdict(dict)
    for e in cells:
        if e.init.name == "sept" and e.index.name in EXACT and e.store.mode == "reuse":
            with suppress(SeptError):
                step = Pipeline(e, resolve(e.hardware)).selection()
                groups[_features(step)][step.key] = step, e
    for group in groups.values():
        missing = [(step, e) for step, e in group.values() if Store(e.store.root, mode="read-only").find(step) is None]
        if len(missing) > 1:
            _search([step for step, _ in missing], missing[-1][1])


def _search(selections: Sequence[Step], e: Experiment) -> None:
    from sept.stages.together import prepare

    try:
        tasks, images = prepare(selections, Store(e.store.root), resolve(e.hardware))
    except Interrupted:
        raise
    except SeptError:
        return
    if tasks > 1:
        print(f"one scan of {images:,} images for {tasks} tasks", file=sys.stderr)


def _features(selection: Step) -> tuple[str, ...]:
    """Keys of the features that a selection searches."""
    return tuple(step.key for name, step in selection.inputs.items() if name.startswith("features"))
