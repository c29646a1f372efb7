"""The images that a domain classifier, task against pool, rates most task-like."""

import numpy as np

from sept.retrieval.candidates import exact_queries
from sept.retrieval.diagnostics import separate
from sept.retrieval.features import IntArray
from sept.selectors.context import BLOCK_ROWS, SelectionContext

POOL_SAMPLE = 20_000  # pool images that represent the pool, the classifier's other domain


def classifier(context: SelectionContext) -> IntArray:
    """The rows that a domain classifier, task against a random sample of the pool, rates most task-like (SEPT Eq. 4,
    taken literally). One pass over the features; the result does not depend on their blocks."""
    weights, _ = separate(context.queries, context.features.take(context.sample(POOL_SAMPLE, "classifier")))
    exact = exact_queries(weights / max(np.linalg.norm(weights), np.finfo(float).tiny))
    rows, scores = np.empty(0, dtype=np.int64), np.empty(0)
    for new, vectors in context.blocks():
        rows = np.concatenate([rows, new])
        scores = np.concatenate([scores, vectors.astype(np.float64) @ exact])
        if len(rows) > 2 * context.wanted + BLOCK_ROWS:
            rows, scores = _best(rows, scores, context.wanted)
    return _best(rows, scores, context.wanted)[0]


def _best(rows: IntArray, scores: np.ndarray, budget: int) -> tuple[IntArray, np.ndarray]:
    """The first `budget` by (-score, row)."""
    order = np.lexsort((rows, -scores))[:budget]
    return rows[order], scores[order]
