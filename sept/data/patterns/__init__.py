"""The embedded world: procedurally drawn images in domains of fine-grained classes, written as real JPEGs.

Classes differ in structure, never in colour; each domain keeps its palette, ground and figure-ground polarity.
"""

from sept.data.patterns.domains import DOMAINS, TARGETS, classes, draw
from sept.data.patterns.shards import draw_pool, draw_task

__all__ = ["DOMAINS", "TARGETS", "classes", "draw", "draw_pool", "draw_task"]
