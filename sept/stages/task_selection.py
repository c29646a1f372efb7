"""The pool images most like a task: by Algorithm 1 or another selector, without copies of test images if so told."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sept import cost
from sept.config import Preprocess
from sept.data.pool import ConcatPool
from sept.errors import ConfigError
from sept.retrieval.approximate import compare
from sept.retrieval.compact import Compact
from sept.retrieval.diagnostics import by_source, coverage, domain_distance, most_used, sampled
from sept.retrieval.features import Features
from sept.retrieval.index import Ranked, search
from sept.retrieval.leaks import FilteredLists, find_leaks
from sept.retrieval.select import Selection, predicted_depth, random_subset, save_selection, select, statistics
from sept.runtime.hardware import Runtime
from sept.runtime.progress import done, progress
from sept.selectors.others import SelectionContext, choose
from sept.stages import queries as query_stage
from sept.stages import verify_features
from sept.stages.copies import Copies
from sept.stages.features import open_encoder
from sept.stages.index import joined, numbered, opened
from sept.stages.task import test_images
from sept.store import Artefact

SAMPLE_EVERY, LEAST_SHARDS = 16, 64  # shards: a sample of fewer than four says little
Lists = Callable[[int], Ranked]


def searched(inputs: Mapping[str, Artefact]) -> tuple[str, ...]:
    """What exact lists depend on: the keys of the features, in their order, and of the queries."""
    return (*(part.key for part in numbered(inputs, "features")), inputs["queries"].key)


def build(
    path: Path,
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    pool: ConcatPool,
    runtime: Runtime,
    batch_size: int,
    uri: str | None,
    task_location: Mapping[str, Any],
    ready: Mapping[tuple[str, ...], Ranked],
) -> dict[str, Any]:
    """Writes the selection to `path` and gives its facts. ready: lists by what they are of (`searched`)."""
    for part in numbered(inputs, "features"):
        _require_same_encoder(part, inputs["queries"])
    features = joined(inputs)
    made = inputs["queries"].manifest["spec"]
    preprocess = Preprocess(**made["preprocess"])
    encoder, _ = open_encoder(inputs["retriever"], preprocess, runtime, batch_size, made["precision"])
    verify_features.check(features, pool, encoder)
    vectors, ids, classes = query_stage.load(inputs["queries"])
    copies = Copies(pool, test_images(inputs["task"], task_location), runtime)
    known = ready.get(searched(inputs))
    with _lists(inputs, spec, features, vectors, runtime, uri, known) as (lists, first_depth, quality):
        selector = _Selector(spec, features, vectors, FilteredLists(lists, features.embedded), first_depth, runtime)
        remove = spec["leak"] == "remove"
        rows, removed = find_leaks(selector, copies.of_tests if remove else _none)
        found = selector.found
        facts = quality() | _about(rows, found, features, vectors, classes, pool, spec["seed"], selector.seen)
    copies.of_tests(rows)
    tests, group = copies.tests_of(rows), copies.groups(rows)
    save_selection(path, rows, [pool.key(row) for row in rows], found, ids, tests, group)
    told = statistics(found, len(vectors)) if found is not None else {"images": len(rows), "queries": len(vectors)}
    return {
        **told,
        "copies_of_test_images": sum(test is not None for test in tests),
        "copies_removed": len(removed),
        "near_duplicates": copies.duplicates(group),
        **facts,
        "flops": cost.search_flops(features.rows, len(vectors), features.dim),
    }


class _Selector:
    """The rows that a selector chooses from a pool without some; keeps what Algorithm 1 says of them."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        features: Features,
        vectors: np.ndarray,
        lists: FilteredLists,
        first_depth: int | None,
        runtime: Runtime,
    ) -> None:
        self.spec, self.features, self.vectors, self.lists = spec, features, vectors, lists
        self.first_depth, self.runtime = first_depth, runtime
        self.found: Selection | None = None
        self.seen: Ranked | None = None

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        self.lists.removed = removed
        if self.spec["method"] != "sept":
            choice = SelectionContext(
                self.features,
                self.vectors,
                self.spec["budget"],
                self.spec["seed"],
                self._ranked,
                removed,
                self.runtime.accelerator,
            )
            return choose(self.spec["method"], choice)
        queries, budget = len(self.vectors), self.spec["budget"]
        self.found = select(self._ranked, queries, budget, self.lists.available, self.first_depth)
        return self.found.rows

    def _ranked(self, depth: int) -> Ranked:
        self.seen = self.lists(depth)
        return self.seen


@contextmanager
def _lists(
    inputs: Mapping[str, Artefact],
    spec: Mapping[str, Any],
    features: Features,
    vectors: np.ndarray,
    runtime: Runtime,
    uri: str | None,
    ready: Ranked | None,
) -> Iterator[tuple[Lists, int | None, Callable[[], dict[str, Any]]]]:
    """Ranked lists to any depth, the depth to begin with, and what there is to say of an index once they were used."""
    budget, device = spec["budget"], runtime.accelerator
    if "index" in inputs:
        how = {"nprobe": spec["nprobe"], "uri": uri, "device": device}
        with opened(inputs["index"], inputs, how) as index:

            def quality() -> dict[str, Any]:
                compared = {}
                if spec["sample"]:
                    compared = compare(index, features, vectors, budget, spec["sample"], 0, device)
                return {**index.facts, **compared}

            yield partial(index.search, vectors), None, quality
        return

    compact = Compact.open(inputs["compact"].path, features) if "compact" in inputs else None

    def exact(depth: int) -> Ranked:
        if ready is not None and depth <= ready.rows.shape[1]:
            return Ranked(ready.rows[:, :depth], ready.scores[:, :depth])
        with progress(f"search to depth {depth:,}", features.rows) as advance:
            seen, memory = done(advance), runtime.search_bytes
            return search(vectors, features, depth, device, progress=seen, memory=memory, compact=compact)

    yield exact, None if ready is not None else _depth_from_sample(features, vectors, budget, device), dict


def _depth_from_sample(features: Features, vectors: np.ndarray, budget: int, device: str) -> int | None:
    """Reading one shard in `SAMPLE_EVERY` spares a pool of many a second scan."""
    if len(features.shards) < LEAST_SHARDS:
        return None
    some = features.every(SAMPLE_EVERY)
    lists = partial(search, vectors, some, device=device)
    return predicted_depth(lists, len(vectors), budget, some.embedded, features.embedded)


def _about(
    rows: np.ndarray,
    found: Selection | None,
    features: Features,
    vectors: np.ndarray,
    classes: Sequence[str],
    pool: ConcatPool,
    seed: int,
    seen: Ranked | None,
) -> dict[str, Any]:
    """Diagnostics: distances of the domains, and where the images come from."""
    drawn = random_subset(features.rows, min(features.rows, len(rows) + len(features.skipped)), seed)
    drawn = drawn[~np.isin(drawn, features.skipped)]  # in their random order: sorted, the first are the first source's
    chosen, random = (features.take(sampled(each, seed)) for each in (rows, drawn[: len(rows)]))
    about: dict[str, Any] = domain_distance(chosen, random, vectors, seed) if len(vectors) > 1 else {}
    about["sources"] = by_source([pool.source(row) for row in rows], pool.counts())
    if found is not None:
        about["images_per_class"] = coverage(found, classes)["per_class"]
        if seen is not None:
            about |= most_used(seen.rows, found)
    return about


def _none(rows: np.ndarray) -> np.ndarray:
    """Nothing is a leak."""
    return np.zeros(len(rows), dtype=bool)


def _require_same_encoder(features: Artefact, queries: Artefact) -> None:
    """Vectors are comparable only when one encoder, preprocessing and precision made them (rule R6)."""
    pool, task = (
        {
            "retriever": each.manifest["inputs"]["retriever"],
            **{name: each.manifest["spec"][name] for name in ("preprocess", "precision")},
        }
        for each in (features, queries)
    )
    if pool != task:
        raise ConfigError(f"the pool was embedded by {pool} but the queries by {task}: embed both the same way")
