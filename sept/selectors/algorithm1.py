"""SEPT Algorithm 1: ranked lists, best ranks first, one query at a time."""

from sept.retrieval.select import select
from sept.retrieval.selections import Selection
from sept.selectors.context import SelectionContext


def algorithm1(context: SelectionContext) -> Selection:
    """The rows that Algorithm 1 picks, each with the list it came from. The result does not depend on the first
    depth."""
    lists = context.lists
    return select(lists, len(context.queries), context.wanted, lists.available, context.first_depth)
