"""The embedded world: procedurally drawn images in domains of fine-grained classes, written as real JPEGs.

Classes differ in structure, never in colour; each domain keeps its palette, ground and figure-ground polarity.
"""

from sept.data.patterns.boxed import draw_boxed_task
from sept.data.patterns.domains import DOMAINS, TARGETS, classes, draw
from sept.data.patterns.drawing import MIXTURES, check_pool, check_target, draw_pool, draw_task, pool_items
from sept.data.patterns.scenes import draw_scene

__all__ = [
    "DOMAINS",
    "MIXTURES",
    "TARGETS",
    "check_pool",
    "check_target",
    "classes",
    "draw",
    "draw_boxed_task",
    "draw_pool",
    "draw_scene",
    "draw_task",
    "pool_items",
]
