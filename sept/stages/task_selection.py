"""The pool images most similar to a task, by Algorithm 1 or another selector; optionally without copies of test
images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sept.data.pool import ConcatPool
from sept.errors import ConfigError
from sept.retrieval.features import Features
from sept.retrieval.leaks import find_leaks
from sept.retrieval.lists import FilteredLists, Ranked
from sept.retrieval.selections import Selection, save_selection, statistics
from sept.retrievers import sizes
from sept.retrievers.settings import Preprocess, Retriever
from sept.runtime.hardware import Runtime
from sept.runtime.progress import from_totals, progress
from sept.selectors import SELECTORS, Selector
from sept.stages import queries as query_stage
from sept.stages.encoding import open_encoder
from sept.stages.index import join_features, open_index
from sept.stages.numbered import in_order
from sept.store.step import Artefact, Step

SAMPLE_EVERY, LEAST_SHARDS = 16, 64  # shards: a sample of fewer than four is unreliable
Search = Callable[[int], Ranked]


@dataclass(frozen=True)
class TaskSelectionSpec:
    """leak: `remove` to exclude copies of test images. nprobe and sample: for an approximate index."""

    selector: Selector
    budget: int
    leak: str
    seed: int
    nprobe: int | None
    sample: int | None


@dataclass(frozen=True)
class Lists:
    """How ranked lists are obtained, without effect on them: the address of an index, the retriever's batch size for
    checks, and existing lists keyed by `searched`."""

    uri: str | None
    batch_size: int
    ready: Mapping[tuple[str, ...], Ranked]


def estimate(spec: TaskSelectionSpec, queries: Step, features: Sequence[Step], r: Retriever) -> dict[str, float]:
    """The FLOPs of an exact scan."""
    rows = sum(each.estimate["images"] for each in features)
    known = features[0].estimate.get("dim")  # for vectors of a file
    dim = int(known) if known else sizes.dim(r.library, r.backbone, r.feature)
    return {"images": spec.budget, "flops": search_flops(int(rows), int(queries.estimate["images"]), dim)}


def search_flops(rows: int, queries: int, dim: int) -> float:
    return 2.0 * rows * queries * dim


def searched(inputs: Mapping[str, Artefact]) -> tuple[str, ...]:
    """What exact lists depend on: the keys of the features, in order, and of the queries."""
    return (*(part.key for part in in_order(inputs, "features")), inputs["queries"].key)


def build(
    path: Path,
    inputs: Mapping[str, Artefact],
    spec: TaskSelectionSpec,
    pool: ConcatPool,
    runtime: Runtime,
    lists: Lists,
) -> dict[str, Any]:
    """Writes the selection to `path` and returns its facts."""
    of_images = "retriever" in inputs  # else vectors of files, possibly without images
    features = _checked_features(inputs, pool, runtime, lists.batch_size) if of_images else join_features(inputs)
    vectors, ids, classes = query_stage.load(inputs["queries"])
    with _search(inputs, spec, features, vectors, runtime, lists) as (search, first_depth, quality):
        chooser = _Chooser(spec, features, vectors, FilteredLists(search, features.embedded), first_depth, runtime)
        rows, removed = find_leaks(chooser, _leak_check(inputs, pool, runtime))
        found = chooser.found
        facts = quality() | _about(rows, found, features, vectors, classes, pool, spec.seed, chooser.lists.last)
    save_selection(path, rows, [pool.key(row) for row in rows], found, ids)
    told = statistics(found, len(ids)) if found is not None else {"images": len(rows), "queries": len(ids)}
    flops = search_flops(features.rows, len(vectors), features.dim)
    return {**told, "copies_removed": len(removed), **facts, "flops": flops}


def _leak_check(
    inputs: Mapping[str, Artefact], pool: ConcatPool, runtime: Runtime
) -> Callable[[np.ndarray], npt.NDArray[np.bool_]]:
    """The check for copies of test images, if they are to be excluded."""
    if "fingerprints" not in inputs:
        return lambda rows: np.zeros(len(rows), dtype=bool)
    from sept.retrieval.copies import LeakCheck, read_tests

    return LeakCheck(pool, read_tests(inputs["fingerprints"].path), runtime)


def _checked_features(inputs: Mapping[str, Artefact], pool: ConcatPool, runtime: Runtime, batch_size: int) -> Features:
    """The pool's features, verified to come from the queries' encoder and the present images."""
    from sept.retrievers.spot_check import spot_check

    for part in in_order(inputs, "features"):
        _require_same_encoder(part, inputs["queries"])
    features, made = join_features(inputs), inputs["queries"].manifest["spec"]
    preprocess = Preprocess(**made["preprocess"])
    encoder = open_encoder(inputs["retriever"], made["feature"], preprocess, runtime, batch_size, made["precision"])
    spot_check(features, pool, encoder)
    return features


class _Chooser:
    """The rows that a selector chooses from a pool without removed ones; keeps its details."""

    def __init__(
        self,
        spec: TaskSelectionSpec,
        features: Features,
        vectors: np.ndarray,
        lists: FilteredLists,
        first_depth: int | None,
        runtime: Runtime,
    ) -> None:
        from sept.selectors.context import SelectionContext

        self.budget, self.name, self.lists = spec.budget, spec.selector.name, lists
        self.choose = SELECTORS[self.name].load()
        self.context = SelectionContext(
            features, vectors, spec.budget, spec.seed, lists, first_depth, runtime.accelerator
        )
        self.found: Selection | None = None

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        self.lists.removed = removed
        if not 0 < self.budget <= self.lists.available:
            raise ConfigError(
                f"budget.images={self.budget:,} but the pool holds only {self.lists.available:,} readable images"
            )
        chosen = self.choose(self.context)
        self.found = chosen if isinstance(chosen, Selection) else None
        rows = chosen.rows if isinstance(chosen, Selection) else chosen
        assert len(np.unique(rows)) == self.budget == len(rows), f"{self.name} broke the budget"
        return rows


@contextmanager
def _search(
    inputs: Mapping[str, Artefact],
    spec: TaskSelectionSpec,
    features: Features,
    vectors: np.ndarray,
    runtime: Runtime,
    lists: Lists,
) -> Iterator[tuple[Search, int | None, Callable[[], dict[str, Any]]]]:
    """Ranked lists to any depth, the first depth, and facts of an index after use."""
    from sept.retrieval.compact import Compact
    from sept.retrieval.index import search

    budget, device = spec.budget, runtime.accelerator
    if "index" in inputs:
        assert spec.nprobe is not None
        with open_index(inputs["index"], inputs, spec.nprobe, lists.uri, device) as index:

            def quality() -> dict[str, Any]:
                from sept.retrieval.approximate import compare

                compared = compare(index, features, vectors, budget, spec.sample, 0, device) if spec.sample else {}
                return {**index.facts, **compared}

            yield partial(index.search, vectors), None, quality
        return

    ready = lists.ready.get(searched(inputs))
    compact = Compact.open(inputs["compact"].path, features) if "compact" in inputs else None

    def exact(depth: int) -> Ranked:
        if ready is not None and depth <= ready.rows.shape[1]:
            return Ranked(ready.rows[:, :depth], ready.scores[:, :depth])
        with progress(f"search to depth {depth:,}", features.rows) as advance:
            seen, memory = from_totals(advance), runtime.search_bytes
            return search(vectors, features, depth, device, progress=seen, memory=memory, compact=compact)

    yield exact, None if ready is not None else _depth_from_sample(features, vectors, budget, device), dict


def _depth_from_sample(features: Features, vectors: np.ndarray, budget: int, device: str) -> int | None:
    """Reading one shard in `SAMPLE_EVERY` saves a large pool a second scan."""
    if len(features.shards) < LEAST_SHARDS:
        return None
    from sept.retrieval.index import search
    from sept.retrieval.select import predicted_depth

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
    from sept.retrieval.diagnostics import by_source, coverage, domain_distance, most_used, sampled
    from sept.retrieval.select import random_subset

    drawn = random_subset(features.rows, min(features.rows, len(rows) + len(features.skipped)), seed)
    drawn = drawn[
        ~np.isin(drawn, features.skipped)
    ]  # in random order: sorted, the first rows would be the first source's
    chosen, random = (features.take(sampled(each, seed)) for each in (rows, drawn[: len(rows)]))
    about: dict[str, Any] = domain_distance(chosen, random, vectors, seed) if len(vectors) > 1 else {}
    about["sources"] = by_source([pool.source(row) for row in rows], pool.counts())
    if found is not None:
        about["images_per_class"] = coverage(found, classes)["per_class"]
        if seen is not None:
            about |= most_used(seen.rows, found)
    return about


def _require_same_encoder(features: Artefact, queries: Artefact) -> None:
    """Vectors are comparable only if the same encoder, preprocessing and precision made them."""
    pool, task = (
        {
            "retriever": each.manifest["inputs"]["retriever"],
            **{name: each.manifest["spec"][name] for name in ("feature", "preprocess", "precision")},
        }
        for each in (features, queries)
    )
    if pool != task:
        raise ConfigError(f"the pool was embedded by {pool} but the queries by {task}: embed both the same way")
