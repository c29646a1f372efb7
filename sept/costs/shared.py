"""Shared costs divided among tasks, and when selecting for each task is cheaper than one pre-training for all.

A retriever and an embedded pool serve every task (R, E); a pre-training on a selection serves one (P); one on ImageNet
serves all tasks of an architecture (B). With t tasks on each of A architectures SEPT is cheaper as long as
(R + E) / A + t P < B.
"""


def amortised(own: float, shared: float, tasks: float) -> float:
    """Of one task: what it costs alone, and its part of what `tasks` tasks share."""
    return own + shared / tasks


def break_even(shared: float, own: float, baseline: float) -> float:
    """The number of tasks, on one architecture, at which both cost the same: below it, selecting for each task is
    cheaper than the baseline, which is paid once. Negative: never."""
    return (baseline - shared) / own


def break_even_own_architecture(shared: float, own: float, baseline: float) -> float:
    """The number of tasks, each on an architecture of its own for which the baseline is paid again, from which on
    selecting is cheaper; infinite: never."""
    return shared / (baseline - own) if baseline > own else float("inf")
