"""The pool images most similar to a task, by Algorithm 1 or another selector; optionally without copies of test
images."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sept.data.pool import ConcatPool
from sept.errors import ConfigError
from sept.retrieval.features import Features
from sept.retrieval.select import FilteredLists, Ranked, find_leaks
from sept.retrieval.selections import Selection, save_selection, statistics
from sept.retrievers import settings
from sept.retrievers.settings import Preprocess, Retriever
from sept.runtime.hardware import Runtime
from sept.runtime.progress import from_totals, progress
from sept.selectors import SELECTORS, Ordered, Selector
from sept.stages import queries as query_stage
from sept.stages.index import join_features, open_index
from sept.stages.inputs import in_order, open_encoder
from sept.store.step import Artefact, Step

SAMPLE_EVERY, LEAST_SHARDS = 16, 64  # shards: a sample of fewer than four is unreliable
Search = Callable[[np.ndarray, int], Ranked]
"""Ranked lists of vectors to a depth."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskSelectionSpec:
    """budget: null if the selector stops by itself. leak: `remove` to exclude copies of test images. nprobe and sample:
    for an approximate index."""

    selector: Selector
    budget: int | None
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
    """The FLOPs of an exact scan, and the images: 0 if they are not known before it."""
    rows = sum(each.estimate["images"] for each in features)
    known = features[0].estimate.get("dim")  # for vectors of a file
    dim = int(known) if known else settings.dim(r.library, r.backbone, r.feature)
    return {"images": spec.budget or 0, "flops": search_flops(int(rows), int(queries.estimate["images"]), dim)}


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
        chooser = _Chooser(spec, features, vectors, search, first_depth, runtime)
        _, removed = find_leaks(chooser, _leak_check(inputs, pool, runtime))
        rows, found = chooser.rows, chooser.found
        of = found.nearest if found is not None and found.nearest is not None else np.arange(len(ids))
        asked, kinds = [ids[i] for i in of], [classes[i] for i in of]  # centres are named by the query nearest to them
        seen = chooser.context.read.last
        facts = quality(len(rows)) | _about(rows, found, features, vectors, kinds, pool, spec.seed, seen)
    save_selection(path, rows, [pool.key(row) for row in rows.tolist()], found, asked)
    told = statistics(found, len(of)) if found is not None else {"images": len(rows)}
    told |= {"queries": len(ids)} | ({"centres": len(of)} if len(of) < len(ids) else {}) | chooser.facts
    flops = search_flops(features.rows, len(of), features.dim)
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
    from sept.retrievers.encoder import spot_check

    for part in in_order(inputs, "features"):
        _require_same_encoder(part, inputs["queries"])
    features, made = join_features(inputs), inputs["queries"].manifest["spec"]
    preprocess = Preprocess(**made["preprocess"])
    encoder = open_encoder(inputs["retriever"], made["feature"], preprocess, runtime, batch_size, made["precision"])
    spot_check(features, pool, encoder)
    return features


class _Chooser:
    """The rows that a selector chooses from a pool without removed ones; keeps its details.

    rows: the chosen ones. A call returns them with those that were skipped on the way as near-duplicates.
    """

    def __init__(
        self,
        spec: TaskSelectionSpec,
        features: Features,
        vectors: np.ndarray,
        search: Search,
        first_depth: int | None,
        runtime: Runtime,
    ) -> None:
        from sept.selectors.context import SelectionContext

        self.choose = SELECTORS[spec.selector.name].load()
        self.least = spec.selector.min_distance if isinstance(spec.selector, Ordered) else None
        lists = FilteredLists(partial(search, vectors), features.embedded)
        what = (features, vectors, spec.budget, spec.seed, lists, first_depth, runtime.accelerator)
        self.context = SelectionContext(*what, settings=spec.selector, search=search)
        self.found: Selection | None = None
        self.rows = np.empty(0, dtype=np.int64)
        self.facts: dict[str, int] = {}

    def __call__(self, removed: np.ndarray) -> np.ndarray:
        context = self.context
        context.lists.removed = removed
        budget, available = context.budget, context.lists.available
        if not 0 < (available if budget is None else budget) <= available:
            raise ConfigError(f"budget.images={budget:,} but the pool holds only {available:,} readable images")
        if self.least is not None:
            return self._apart(self.least)
        self.rows, self.found = self._chosen(budget)
        assert len(np.unique(self.rows)) == len(self.rows), f"{context.settings.name} repeats rows"
        assert budget in (None, len(self.rows)), f"{context.settings.name} broke the budget"
        if budget is None and len(self.rows) == available:
            log.warning("budget=auto: no round was unlike the first, so all %s images are selected", f"{available:,}")
        return self.rows

    def _chosen(self, budget: int | None) -> tuple[np.ndarray, Selection | None]:
        chosen = self.choose(replace(self.context, budget=budget))
        return (chosen.rows, chosen) if isinstance(chosen, Selection) else (chosen, None)

    def _apart(self, least: float) -> np.ndarray:
        """Goes down the selector's order, which is longer for a larger budget, until the budget is met."""
        from sept.retrieval.apart import Apart

        accept, kept = Apart(self.context.features, least, self.context.device), np.zeros(0, dtype=bool)
        budget, available = self.context.budget, self.context.lists.available
        asked = budget
        while True:
            rows, found = self._chosen(asked)
            kept = np.concatenate([kept, accept(rows[len(kept) :], budget)])
            if asked is None or kept.sum() >= (budget or 0) or asked == available:
                break
            asked = min(available, 2 * asked)
        places = np.flatnonzero(kept)[:budget]
        if budget is not None and len(places) < budget:
            raise ConfigError(
                f"selector.min_distance={least:g}: only {len(places):,} images of the pool are that far apart, in the "
                f"order that selector={self.context.settings.name} draws them, and {budget:,} are wanted: lower it or "
                "budget.images"
            )
        self.rows, self.found = rows[places], found.take(places) if found is not None else None
        looked_at = rows[: places[-1] + 1] if budget is not None else rows
        self.facts = {"near_duplicates_skipped": len(looked_at) - len(places)}
        return looked_at


@contextmanager
def _search(
    inputs: Mapping[str, Artefact],
    spec: TaskSelectionSpec,
    features: Features,
    vectors: np.ndarray,
    runtime: Runtime,
    lists: Lists,
) -> Iterator[tuple[Search, int | None, Callable[[int], dict[str, Any]]]]:
    """Ranked lists of any vectors, the first depth, and facts of an index after use, for a number of chosen rows."""
    from sept.retrieval.compact import Compact
    from sept.retrieval.index import search

    budget, device = spec.budget, runtime.accelerator
    if "index" in inputs:
        assert spec.nprobe is not None
        with open_index(inputs["index"], inputs, spec.nprobe, lists.uri, device) as index:

            def quality(chosen: int) -> dict[str, Any]:
                from sept.retrieval.approximate import compare

                compared = compare(index, features, vectors, chosen, spec.sample, 0, device) if spec.sample else {}
                return {**index.facts, **compared}

            yield index.search, None, quality
        return

    ready = lists.ready.get(searched(inputs))
    compact = Compact.open(inputs["compact"].path, features) if "compact" in inputs else None

    def exact(asked: np.ndarray, depth: int) -> Ranked:
        if ready is not None and asked is vectors and depth <= ready.rows.shape[1]:
            return Ranked(ready.rows[:, :depth], ready.scores[:, :depth])
        with progress(f"search to depth {depth:,}", features.rows) as advance:
            seen, memory = from_totals(advance), runtime.search_bytes
            return search(asked, features, depth, device, progress=seen, memory=memory, compact=compact)

    needless = ready is not None or budget is None
    first = None if needless else _depth_from_sample(features, vectors, budget or 0, device)
    yield exact, first, lambda chosen: {}


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
