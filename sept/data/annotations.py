"""Labels, captions or vectors of packed images, in the order of the images, beside them in the subset's folder."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sept.data.names import check_classes
from sept.errors import DataError, reason

CLASSES, NUMBERS = "classes.json", "labels.npy"
"""A list of names, and int64 (n,) places in it."""
TEXTS, ENDS = "captions.bin", "captions.npy"
"""UTF-8 texts back to back, and int64 (n,) where each ends."""
VECTORS = "vectors.npy"
"""float32 (n, D)."""
ALIKE = 1e-6  # length of what is left of a vector of unit length
AT_ONCE = 65_536  # vectors in memory
MEND = "give every image of a class one label"


def photo_of(names: Sequence[str]) -> str:
    """A caption made of labels (Koppula et al. 2022): "This is a photo of a, b and c." """
    *others, last = (name.replace("_", " ") for name in names)
    return f"This is a photo of {', '.join(others)}{' and ' if others else ''}{last}."


def write_labels(folder: Path, names: Sequence[str], source: str) -> int:
    """names: of each image's class. Gives the number of classes, which are sorted by number where all are numbers, else
    by bytes. Raises DataError, about `source`, for class names that are or look the same."""
    found = {*names}
    classes = sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found, key=str.encode)
    check_classes(source, classes, MEND)
    places = {name: place for place, name in enumerate(classes)}
    np.save(folder / NUMBERS, np.array([places[name] for name in names], np.int64), allow_pickle=False)
    (folder / CLASSES).write_text(json.dumps(classes))
    return len(classes)


def write_captions(folder: Path, captions: Sequence[str]) -> None:
    """captions: one an image."""
    texts = [caption.encode() for caption in captions]
    (folder / TEXTS).write_bytes(b"".join(texts))
    np.save(folder / ENDS, np.cumsum([len(text) for text in texts], dtype=np.int64), allow_pickle=False)


def write_vectors(folder: Path, count: int, dim: int, take: Callable[[slice], NDArray[np.float32]]) -> None:
    """The vectors of images, less their mean, at unit length: encoders give all images of a pool much in common. take:
    (m, dim) of a stretch of them. Raises DataError where they are all the same."""
    kept = np.lib.format.open_memmap(folder / VECTORS, "w+", np.float32, (count, dim))
    parts = [slice(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
    total = np.zeros(dim)
    for part in parts:
        kept[part] = take(part)
        total += kept[part].sum(axis=0, dtype=np.float64)
    mean = (total / count).astype(np.float32)
    for part in parts:
        kept[part] -= mean
        lengths = np.linalg.norm(kept[part], axis=1, keepdims=True)
        if not (lengths > ALIKE).all():
            raise DataError("the retriever gives a chosen image their mean: it does not tell them apart; use another")
        kept[part] /= lengths
    kept.flush()


class Labels:
    """Numbers of classes by position, and the names of the classes."""

    def __init__(self, folder: Path) -> None:
        self.classes: list[str] = json.loads((folder / CLASSES).read_bytes())
        self._numbers: NDArray[np.int64] = np.load(folder / NUMBERS, mmap_mode="r", allow_pickle=False)
        if len(self._numbers) and not 0 <= self._numbers.min() <= self._numbers.max() < len(self.classes):
            raise ValueError(f"{NUMBERS} has others than 0 to {len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, position: int) -> dict[str, Any]:
        """What a training sample holds."""
        return {"label": int(self._numbers[position])}


class Captions:
    """Texts by position, mapped from disk."""

    def __init__(self, folder: Path) -> None:
        self._ends: NDArray[np.int64] = np.load(folder / ENDS, allow_pickle=False)
        self._texts = np.memmap(folder / TEXTS, dtype=np.uint8, mode="r")
        lengths = np.diff(self._ends, prepend=0)
        if not (lengths > 0).all() or lengths.sum() != len(self._texts):
            raise ValueError(f"{TEXTS} has other lengths than {ENDS}")

    def __len__(self) -> int:
        return len(self._ends)

    def of(self, position: int) -> dict[str, Any]:
        """What a training sample holds."""
        first = int(self._ends[position - 1]) if position else 0
        return {"caption": self._texts[first : int(self._ends[position])].tobytes().decode()}


class Vectors:
    """The retriever's vectors by position, mapped from disk."""

    def __init__(self, folder: Path) -> None:
        self._vectors: NDArray[np.float32] = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        self.width = self._vectors.shape[1]

    def __len__(self) -> int:
        return len(self._vectors)

    def of(self, position: int) -> dict[str, Any]:
        """What a training sample holds: float32 (D,)."""
        from torch import from_numpy

        return {"vector": from_numpy(np.array(self._vectors[position]))}


Annotations = Labels | Captions | Vectors
FILES: dict[str, type[Annotations]] = {NUMBERS: Labels, ENDS: Captions, VECTORS: Vectors}


def open_annotations(folder: Path, images: int, again: str) -> Annotations | None:
    """Those in a subset's folder, None where there are none. Raises DataError, with `again` for a remedy, where they
    are damaged or not as many as images."""
    kind = next((kind for name, kind in FILES.items() if (folder / name).exists()), None)
    if kind is None:
        return None
    try:
        found = kind(folder)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{folder}: its annotations are damaged ({reason(error)}); {again}") from error
    if len(found) != images:
        raise DataError(f"{folder}: {len(found):,} annotations of {images:,} images; {again}")
    return found
