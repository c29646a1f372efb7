"""A selection in sentences: what was asked and found, how good it is, what to worry about; what each figure means.

Figures are the facts that `sept.stages.task_selection` and `sept.stages.copies` record.
"""

from collections.abc import Mapping
from typing import Any

MUCH, HARDLY = 0.5, 0.9  # of a random subset's distance to the task: much nearer below one, hardly from the other on
MANY = 0.1  # share of a selection

MEANING = {
    "images": "images selected",
    "queries": "labelled images (or vectors) that were looked up in the pool",
    "centres": "centres of clusters that were looked up in their place",
    "depth": "how far down the ranked lists Algorithm 1 had to read: every image at a higher rank was taken",
    "similarity_min": "cosine of the least similar selected image with the query that found it; 1 is the same image",
    "similarity_p05": "95 % of the selected images are more similar than this to the query that found them",
    "similarity_median": "half of the selected images are more similar than this to the query that found them",
    "similarity_p95": "5 % of the selected images are more similar than this",
    "similarity_max": "the best match of all",
    "images_per_query_min": "selected images of the query that brought fewest",
    "images_per_query_median": "selected images that a query brought, in the middle",
    "images_per_query_max": "selected images of the query that brought most",
    "queries_without_images": "queries whose best matches had all been brought by other queries",
    "near_duplicates_skipped": "images passed over because one like them had been selected (selector.min_distance)",
    "copies_removed": "copies of the task's test images kept out of the selection (leak=remove)",
    "a_distance_selection": "how well a linear classifier tells the selection from the task: 0 not at all, 2 always",
    "a_distance_random": "the same for as many random images of the pool",
    "sources": "from which part of the pool the images are, and how large that part is",
    "images_per_class": "selected images that the queries of each class brought",
    "per_query": "selected images that each query brought",
    "lists_mean": "in how many queries' lists a selected image is, on average: more means that queries look alike",
    "shared": "share of the selected images that are in more than one query's list",
    "most_used": "rows of the pool that are in most lists; the same few everywhere would be hubs, similar to all",
    "copies_of_test_images": "selected images that show a test image of the task, mirrored, resized or cropped",
    "near_duplicates": "selected images that are a copy of another selected one",
}
"""Of every figure, a few words for someone who meets it for the first time."""


def story(what: str, retriever: str, pool: int, facts: Mapping[str, Any], random: float | None) -> dict[str, list[str]]:
    """Sentences under four headings. what: the task's name. pool: its number of images. random: the mean cosine of a
    query and a random image of the pool, if there are queries with lists."""
    images = facts["images"]
    asked = f"The {images:,} of {pool:,} pool images that are most like {facts.get('queries', 0):,} images of {what}"
    return {
        "What you asked": [f"{asked}, as {retriever} sees them."],
        "What was found": _found(facts),
        "How good it is": _quality(facts, random),
        "What to worry about": _worries(facts) or ["Nothing was noticed in these figures."],
    }


def _found(facts: Mapping[str, Any]) -> list[str]:
    if "depth" not in facts:
        return [f"{facts['images']:,} images."]
    brought, depth = facts["images_per_query_median"], facts["depth"]
    return [
        f"Each query's list was read down to place {depth:,}; a query brought {brought:,.4g} images (median), "
        f"{facts['images_per_query_min']:,} to {facts['images_per_query_max']:,}."
    ]


def _quality(facts: Mapping[str, Any], random: float | None) -> list[str]:
    lines = []
    if random is not None and "similarity_median" in facts:
        lines.append(
            f"A selected image has cosine {facts['similarity_median']:.3f} with the query that found it (median; the "
            f"least similar {facts['similarity_min']:.3f}); a random pool image has {random:.3f} with a query."
        )
    if "a_distance_selection" in facts:
        here, there = facts["a_distance_selection"], facts["a_distance_random"]
        how = "much " if here < MUCH * there else "" if here < HARDLY * there else "hardly "
        lines.append(
            f"To a linear classifier the selection is {how}nearer to the task than random images: distance {here:.2f} "
            f"against {there:.2f} (0 cannot be told apart, 2 always)."
        )
    return lines or ["This selector gives no similarities."]


def _worries(facts: Mapping[str, Any]) -> list[str]:
    images, lines = max(facts["images"], 1), []
    if copies := facts.get("copies_of_test_images"):
        lines.append(
            f"{copies:,} selected images are copies of test images of the task (copies.parquet lists them): "
            "leak=remove keeps them out."
        )
    if (again := facts.get("near_duplicates") or 0) > MANY * images:
        lines.append(
            f"{again:,} selected images ({again / images:.0%}) are copies of other selected ones: "
            "selector.min_distance=0.02 skips them."
        )
    if alone := facts.get("queries_without_images"):
        lines.append(f"{alone:,} queries brought nothing, because others had brought their best matches.")
    if facts.get("a_distance_selection", 0) >= HARDLY * facts.get("a_distance_random", 2.0):
        lines.append("The selection is as far from the task as random images are: advise=true says what may help.")
    return lines
