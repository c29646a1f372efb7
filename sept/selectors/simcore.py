"""SimCore: Algorithm 1 for the centres of clusters of the task's vectors, with a rule of its own for when to stop."""

from dataclasses import replace

import numpy as np

from sept.data.rng import fold
from sept.retrieval.cluster import centroids
from sept.retrieval.features import IntArray
from sept.retrieval.select import select, select_while
from sept.retrieval.selections import Selection
from sept.selectors import SimCore
from sept.selectors.context import SelectionContext

DIGITS = 6  # of a cosine


def simcore(context: SelectionContext) -> Selection:
    """The rows that Algorithm 1 picks from the lists of the task's centres, or with budget=auto all until a round is
    too unlike the first.

    As in the released code, a task of no more images than `clusters` is looked up image by image. `Selection.nearest`
    is the query nearest to each centre.
    """
    settings, queries = context.settings, context.queries
    assert isinstance(settings, SimCore)
    centres = queries
    if settings.clusters < len(queries):
        centres = centroids(queries, settings.clusters, fold(context.seed, "simcore"), context.device)
    lists = context.lists if centres is queries else context.lists_of(centres)
    if context.budget is None:
        found = select_while(lists, len(centres), settings.stop, lists.available)
    else:
        found = select(lists, len(centres), context.budget, lists.available)
    return found if centres is queries else replace(found, nearest=_nearest(centres, queries))


def _nearest(centres: np.ndarray, queries: np.ndarray) -> IntArray:
    """(C,) the query nearest to each centre, the first of equals: both of a cluster of two are, but for rounding."""
    nearest: IntArray = np.round(centres.astype(np.float64) @ queries.T, DIGITS).argmax(axis=1)
    return nearest
