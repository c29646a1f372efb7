"""What accuracies of a task are to be seen against, without any training: chance, and nearest neighbour on raw pixels.

Shapes: N shots, M test images.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from sept.data.labelled import read_image
from sept.data.tasks.task import Example
from sept.runtime.threads import in_order

SIDE = 32  # pixels of the squashed grey images
MOST = 4_000  # shots, and test images, spread evenly over more: decoding them takes seconds
BLOCK = 1_024  # test images per product
FLAT = 1e-3  # grey levels added to the deviation, for an image of one colour


def floor(shots: Sequence[Example], tests: Sequence[Example], threads: int) -> dict[str, float]:
    """chance: top-1 in percent of always naming the class with most test images, 1 / classes if all have as many.
    floor: top-1 in percent of the nearest shot by the correlation of grey pixels. Raises DataError for an image that
    cannot be read."""
    labels = np.array([example.label for example in tests])
    known, asked = _spread(shots), _spread(tests)
    predicted = nearest(pixels(known, threads), pixels(asked, threads))
    hits = np.array([known[i].label for i in predicted]) == [example.label for example in asked]
    return {"chance": 100 * float(np.bincount(labels).max()) / len(labels), "floor": 100 * float(hits.mean())}


def pixels(examples: Sequence[Example], threads: int) -> npt.NDArray[np.float32]:
    """(n, SIDE * SIDE): grey pixels of each image, of mean 0 and length 1; of one colour: zeros."""

    def one(example: Example) -> npt.NDArray[np.float32]:
        return standardised(read_image(example, SIDE))

    return np.stack([*in_order(one, examples, threads)])


def standardised(image: np.ndarray) -> npt.NDArray[np.float32]:
    """(SIDE * SIDE,): grey pixels of uint8 (H, W, 3), of mean 0 and length 1; of one colour: zeros."""
    grey = Image.fromarray(image).convert("L").resize((SIDE, SIDE))
    values = np.asarray(grey, dtype=np.float32).ravel()
    values = (values - values.mean()) / (values.std() + FLAT)
    length = float(np.linalg.norm(values))
    return values / length if length else values


def nearest(known: np.ndarray, asked: np.ndarray) -> npt.NDArray[np.int64]:
    """(M,): the place of the known vector (N, D) with the largest product with each asked one (M, D); ties: the
    first."""
    parts = [(asked[start : start + BLOCK] @ known.T).argmax(axis=1) for start in range(0, len(asked), BLOCK)]
    return np.concatenate(parts)


def _spread(examples: Sequence[Example]) -> Sequence[Example]:
    if len(examples) <= MOST:
        return examples
    return [examples[i] for i in np.linspace(0, len(examples) - 1, MOST).astype(int)]
