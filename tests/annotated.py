"""Recipes and images of the smallest useful size for methods that learn from labels or captions."""

from pathlib import Path

import micro
import numpy as np

from sept.data.annotations import photo_of, write_captions, write_labels, write_vectors
from sept.data.subset import Subset
from sept.methods.clip.recipe import ClipRecipe
from sept.methods.distill.recipe import DistillRecipe
from sept.methods.supervised.recipe import SupervisedRecipe

CLASSES, WIDTH = 5, 12
SHORT = {"side": micro.SIDE, "store_side": micro.SIDE, "batch_size": 16, "lr_batch": 16, "warmup_epochs": 0}


def supervised(**changes) -> SupervisedRecipe:
    return SupervisedRecipe(**{**SHORT, "drop_path_rate": 0.0, "classes": CLASSES} | changes)


def clip(**changes) -> ClipRecipe:
    text = {"tokens": "bytes", "context": 40, "text_width": 32, "text_layers": 2, "text_heads": 2, "out_dim": 16}
    return ClipRecipe(**{**SHORT, **text, "drop_path_rate": 0.0} | changes)


def distill(**changes) -> DistillRecipe:
    return DistillRecipe(**{**SHORT, "drop_path_rate": 0.0, "out_dim": WIDTH} | changes)


def vectors(count: int) -> np.ndarray:
    """float32 (n, WIDTH), near each other as an encoder's are."""
    return 3 + np.random.default_rng(0).normal(size=(count, WIDTH)).astype(np.float32)


def name(image: int) -> str:
    return f"class {image % CLASSES}"


def caption(image: int) -> str:
    """Of different lengths."""
    return photo_of([name(image)]) if image % 3 else f"no. {image}"


def subset(folder: Path, count: int, reads: str) -> Subset:
    """Packed images with labels, captions or vectors."""
    micro.subset(folder, count)
    if reads == "labels":
        write_labels(folder, [name(image) for image in range(count)], "a test")
    elif reads == "features":
        made = vectors(count)
        write_vectors(folder, count, WIDTH, lambda part: made[part])
    else:
        write_captions(folder, [caption(image) for image in range(count)])
    return Subset.open(folder)
