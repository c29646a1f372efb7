"""One scan of a pool for the queries of several tasks: a sweep's selections find their lists ready."""

from collections.abc import Mapping, Sequence
from math import ceil

from sept.retrieval.index import search_many
from sept.retrieval.select import DEPTH_MARGIN, Ranked
from sept.runtime.hardware import Runtime
from sept.runtime.progress import from_totals, progress
from sept.stages import queries as query_stage
from sept.stages import task_selection
from sept.stages.index import join_features
from sept.store import Step, Store

NEEDED = ("features", "queries")  # inputs of a selection that lists are computed from


def prepare(
    selections: Sequence[Step], store: Store, runtime: Runtime
) -> tuple[Mapping[tuple[str, ...], Ranked], int, int]:
    """Searches once for selections by Algorithm 1 that share a pool's features; returns lists, tasks and images.

    Makes the features and queries that they need. Lists are keyed by `task_selection.searched`, to the depth at which
    each selection would begin: one that needs deeper ones searches on its own. For a single task there are none.
    """
    wanted: dict[tuple[str, ...], tuple] = {}
    for step in selections:
        assert isinstance(step.spec, task_selection.TaskSelectionSpec)
        made = {name: store.read(each) for name, each in step.inputs.items() if name.startswith(NEEDED)}
        assert step.spec.budget is not None, "Algorithm 1 has a budget"
        vectors, _, _ = query_stage.load(made["queries"])
        key, depth = task_selection.searched(made), ceil(DEPTH_MARGIN * step.spec.budget / len(vectors))
        _, known = wanted.get(key, (vectors, 0))
        wanted[key] = vectors, max(known, depth)
    features, found = join_features(made), list[Ranked]()
    if len(wanted) > 1:
        runtime.configure_torch()
        with progress("search", features.rows) as advance:
            found = search_many(
                [*wanted.values()],
                features,
                runtime.accelerator,
                progress=from_totals(advance),
                memory=runtime.search_bytes,
            )
    return dict(zip(wanted, found, strict=False)), len(wanted), features.rows
