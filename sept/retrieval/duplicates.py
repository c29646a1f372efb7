"""Near-duplicates: copies of one image among others, and those within one set.

Compares thumbnails of candidate images with those of a task's test images, and returns pairs, in two steps: one product
of all whole-image fingerprints, then windows of the near pairs. Shapes: n candidates, m references, P pairs, W windows.

Calibrated on 32-px images of one domain of the embedded world, compared with 800 test images of the same 16 classes
(`python benchmarks/duplicates.py` prints the curves): the hardest available case, where hundreds of other images show
the same motif in the same colours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sept.retrieval.features import IntArray
from sept.retrieval.fingerprints import Fingerprints, Thumbnails, global_hash, window_hashes

WHOLE, WINDOW = 0.014, 0.0065  # 1 - correlation of a copy's print with the whole image's, with the nearest window's
NEAR = 0.5  # the same for pairs whose windows are compared
LEVEL, COLOUR = 3.5, 15.0  # grey levels: between copy and window, and of the mean colours of the whole images
CONTRAST = 0.25  # difference of the contrasts' logarithms: 16 px of 32, by a soft filter, lose a fifth
CANDIDATES, REFERENCES = 1024, 8192  # of one product: 34 MB
PAIRS = 4096  # pairs whose windows are compared at once: 40 MB


@dataclass(frozen=True)
class Pairs:
    """P pairs of copies: indices of candidate and reference, and the distance, 1 - the correlation of their
    fingerprints. Sorted by candidate, nearest first."""

    candidate: IntArray
    reference: IntArray
    distance: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.candidate)

    def take(self, which: npt.NDArray[Any]) -> "Pairs":
        """The pairs selected by a mask (P,) or by indices."""
        return Pairs(self.candidate[which], self.reference[which], self.distance[which])

    def nearest(self) -> "Pairs":
        """One pair per candidate."""
        return self.take(np.diff(self.candidate, prepend=-1) != 0)


def copies(candidates: Thumbnails, references: Thumbnails, device: str | torch.device = "cpu") -> Pairs:
    """The candidates that are copies of a reference, mirrored or not: re-encoded, resized, or cropped by up to 6 % of a
    side. Changes of exposure or colour make another image.

    Cost: n * m * 256 FLOPs, less the pairs that differ in brightness, and 40 microseconds per near pair. 20,000
    smooth images against 36,500, of which 0.25 % of pairs came near, took 40 s of one core.
    """
    found = []
    for turned in (candidates, candidates.mirrored()):
        prints = global_hash(turned)
        for candidate, reference in _near(prints, turned.colour, references, device):
            distance = _distance(prints, references, candidate, reference)
            same = np.isfinite(distance)
            found.append(Pairs(candidate[same], reference[same], distance[same]))
    return _merged(found)


def copies_within(thumbnails: Thumbnails, device: str | torch.device = "cpu") -> Pairs:
    """The pairs of copies within one set: candidate and reference are its indices, each pair once, candidate first."""
    pairs = copies(thumbnails, thumbnails, device)
    low, high = np.minimum(pairs.candidate, pairs.reference), np.maximum(pairs.candidate, pairs.reference)
    return _merged([Pairs(low, high, pairs.distance).take(low < high)])


def groups(pairs: Pairs, images: int) -> IntArray:
    """(images,) for each image the lowest index among its copies, including copies of copies; its own without any."""
    root = np.arange(images)

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]  # halves the path
            i = root[i]
        return i

    for a, b in zip(pairs.candidate.tolist(), pairs.reference.tolist(), strict=True):
        low, high = sorted((find(a), find(b)))
        root[high] = low
    return np.array([find(i) for i in range(images)], dtype=np.int64)


def _near(
    prints: Fingerprints, colour: np.ndarray, references: Thumbnails, device: str | torch.device
) -> Iterator[tuple[IntArray, IntArray]]:
    """Indices of the pairs, (P,) each, whose whole images are near (NEAR, COLOUR). Multiplies only images of similar
    brightness."""
    order, others = np.argsort(colour[:, 1], kind="stable"), np.argsort(references.colour[:, 1], kind="stable")
    greens = references.colour[others, 1]
    units = torch.from_numpy(global_hash(references).unit[others]).to(device)
    for start in range(0, len(order), CANDIDATES):
        here = order[start : start + CANDIDATES]
        first, last = np.searchsorted(greens, (colour[here[0], 1] - COLOUR, colour[here[-1], 1] + COLOUR))
        unit = torch.from_numpy(prints.unit[here]).to(device)
        for begin in range(first, last, REFERENCES):
            end = min(begin + REFERENCES, last)
            near = (unit @ units[begin:end].T >= 1 - NEAR).nonzero().cpu().numpy()
            candidate, reference = here[near[:, 0]], others[begin:end][near[:, 1]]
            alike = np.abs(colour[candidate] - references.colour[reference]).max(axis=1) <= COLOUR
            yield candidate[alike], reference[alike]


def _distance(
    prints: Fingerprints, references: Thumbnails, candidate: IntArray, reference: IntArray
) -> npt.NDArray[np.float32]:
    """(P,) distance of each pair at its best window; infinite if none matches."""
    result = np.full(len(candidate), np.inf, dtype=np.float32)
    for start in range(0, len(candidate), PAIRS):
        here = slice(start, start + PAIRS)
        c = candidate[here]
        looked_at, r = np.unique(reference[here], return_inverse=True)
        windows = window_hashes(references.take(looked_at))
        distance = 1 - (windows.unit[r] @ prints.unit[c][..., None])[..., 0]  # (p, W)
        copy = distance <= WINDOW
        copy[:, 0] = distance[:, 0] <= WHOLE
        copy &= np.abs(windows.level[r] - prints.level[c][:, None]) <= LEVEL
        with np.errstate(divide="ignore", invalid="ignore"):  # flat images: their distance is 1
            copy &= np.abs(np.log(windows.contrast[r] / prints.contrast[c][:, None])) <= CONTRAST
        result[here] = np.where(copy, distance, np.inf).min(axis=1)
    return result


def _merged(found: list[Pairs]) -> Pairs:
    """All pairs, each at its least distance, by candidate, then distance, then reference."""
    candidate, reference, distance = (
        np.concatenate([getattr(pairs, name) for pairs in found] or [np.empty(0, kind)])
        for name, kind in (("candidate", np.int64), ("reference", np.int64), ("distance", np.float32))
    )
    order = np.lexsort((distance, reference, candidate))
    pairs = Pairs(candidate[order], reference[order], distance[order])
    again = (np.diff(pairs.candidate, prepend=-1) == 0) & (np.diff(pairs.reference, prepend=-1) == 0)
    pairs = pairs.take(~again)
    return pairs.take(np.lexsort((pairs.reference, pairs.distance, pairs.candidate)))
