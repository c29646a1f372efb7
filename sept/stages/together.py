"""One scan of a pool for the queries of several tasks: a sweep's selections find their lists ready."""

from collections import defaultdict
from collections.abc import Iterable
from math import ceil

from sept.machine import Machine
from sept.progress import done, progress
from sept.retrieval.index import search_many
from sept.retrieval.select import DEPTH_MARGIN
from sept.stages import queries as query_stage
from sept.stages import similar
from sept.stages.index import joined
from sept.store import Step, Store

NEEDED = ("features", "queries")  # inputs of a selection that lists are made of


def prepare(selections: Iterable[Step], store: Store, machine: Machine) -> list[tuple[int, int]]:
    """Searches once for all selections by Algorithm 1 that `store` lacks and that share a pool's features.

    Makes the features and queries that they need. The lists stay in this process (`similar.READY`), to the depth with
    which each would begin; a selection that needs deeper ones searches on its own. Gives, of each scan, the images and
    the tasks.
    """
    scans = []
    for group in _groups(selections, store):
        wanted: dict[tuple[str, ...], tuple] = {}
        for step in group:
            made = {name: store.make(each) for name, each in step.inputs.items() if name.startswith(NEEDED)}
            vectors, _, _ = query_stage.load(made["queries"])
            key, depth = similar.searched(made), ceil(DEPTH_MARGIN * step.spec["budget"] / len(vectors))
            _, known = wanted.get(key, (vectors, 0))
            wanted[key] = vectors, max(known, depth)
        if len(wanted) < 2:
            continue
        machine.use_threads()
        features = joined(made)
        with progress("search", features.rows) as advance:
            found = search_many(
                [*wanted.values()], features, machine.accelerator, progress=done(advance), memory=machine.search_bytes
            )
        similar.READY.update(zip(wanted, found, strict=True))
        scans.append((features.rows, len(wanted)))
    return scans


def _groups(selections: Iterable[Step], store: Store) -> list[list[Step]]:
    """Those that are to be searched for, each once, by the features they share."""
    groups: dict[tuple[str, ...], dict[str, Step]] = defaultdict(dict)
    for step in selections:
        exact = step.spec["method"] == "sept" and "index" not in step.inputs
        if exact and store.find(step) is None:
            features = tuple(each.key for name, each in step.inputs.items() if name.startswith("features"))
            groups[features][step.key] = step
    return [[*group.values()] for group in groups.values() if len(group) > 1]
