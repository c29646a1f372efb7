"""The artefact store: equal steps are computed once, and a folder that is there is whole.

A `Step` says what is wanted and how to build it; `Store.make` gives its `Artefact`, built now or long
ago. Every stage of the pipeline reads and writes through it; neither torch nor a config is needed here.
"""

from sept.store.step import CHECKPOINTS, KEY_CHARS, Artefact, Step
from sept.store.store import Store, check

__all__ = ["CHECKPOINTS", "KEY_CHARS", "Artefact", "Step", "Store", "check"]
