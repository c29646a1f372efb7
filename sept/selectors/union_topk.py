"""The union of the best matches of every query, cut to the budget."""

import numpy as np

from sept.retrieval.features import IntArray
from sept.selectors.context import SelectionContext

FIRST_DEPTH = 1.5  # of the lists to unite, in units of budget / queries


def union_topk(context: SelectionContext) -> IntArray:
    """The union of every query's k best, with the smallest k that reaches the budget, cut to it by similarity to the
    nearest query that lists a row (SEPT, Task-specific Instance Search: the text's looser version of Alg. 1)."""
    lists = context.lists
    depth = min(lists.available, int(np.ceil(FIRST_DEPTH * context.wanted / len(context.queries))))
    while True:
        ranked = lists(depth)
        _, first = np.unique(ranked.rows.T, return_index=True)  # rank by rank: the first occurrence of each row
        if len(first) >= context.wanted:
            break
        assert depth < lists.available, "complete lists lack some readable rows"
        depth = min(lists.available, 2 * depth)
    k = int(np.sort(first)[context.wanted - 1]) // len(context.queries) + 1
    named, scores = ranked.rows[:, :k].ravel(), ranked.scores[:, :k].ravel()
    by_similarity = named[np.lexsort((named, -scores))]
    _, best = np.unique(by_similarity, return_index=True)
    return by_similarity[np.sort(best)[: context.wanted]]
