"""The artefact store: equal steps are computed once, and an existing folder is complete.

A `Step` describes an artefact and how to build it; `Store.make` returns the `Artefact`, built now or earlier. Every
stage of the pipeline reads and writes through it; neither torch nor a config is needed here.
"""

from sept.store.step import CHECKPOINTS, KEY_CHARS, Artefact, Step
from sept.store.store import Store, check

__all__ = ["CHECKPOINTS", "KEY_CHARS", "Artefact", "Step", "Store", "check"]
