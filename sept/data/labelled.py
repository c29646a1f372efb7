"""A task's labelled images as they are read: plain, as training views of the few shots, and as test views."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from sept.data.images import Pixels, ample
from sept.data.loading import Place
from sept.data.sources.reader import File, read_labelled
from sept.data.tasks.task import Example
from sept.data.transforms import FinetuneTransform, eval_view

if TYPE_CHECKING:
    from sept.data.detection.boxes import Instance

TEST_BATCH = 256


def read_image(example: Example, side: int | None = None) -> Pixels:
    """uint8 (H, W, 3) of a labelled image, for a resize to `side` next maybe at reduced scale (see `decode`).

    Raises DataError naming the file when it cannot be used.
    """
    return read_labelled(example.path, side and ample(side))


def reader(examples: Sequence[Example], side: int) -> Callable[[int], Pixels]:
    """Gives the image at a place of `examples`, for a resize to `side`. Data workers can be given it."""
    return partial(_read, examples, side)


def _read(examples: Sequence[Example], side: int, place: int) -> Pixels:
    return read_image(examples[place], side)


class InstanceReader:
    """Gives the annotated box at a place of `boxes` as an image (side, side, 3); boxes of one image follow each other,
    and it is decoded once. Data workers can be given it."""

    def __init__(self, boxes: "Sequence[Instance]", side: int) -> None:
        self.boxes, self.side = boxes, side
        self._path: File | None = None
        self._pixels: Pixels | None = None

    def __call__(self, place: int) -> Pixels:
        instance = self.boxes[place]
        if self._pixels is None or self._path != instance.path:
            self._path, self._pixels = instance.path, read_labelled(instance.path)
        from sept.data.detection.crops import crop_instance

        return crop_instance(self._pixels, instance.box, self.side)


class Shots(Dataset):
    """Training views, indexed by (epoch, sample): a function of (seed, epoch, sample)."""

    def __init__(self, shots: Sequence[Example], transform: FinetuneTransform, seed: int) -> None:
        self.shots, self.transform, self.seed = shots, transform, seed

    def __getitem__(self, place: Place) -> dict[str, Any]:
        epoch, sample = place
        view = self.transform(read_image(self.shots[sample]), self.seed, "shot", epoch, sample)
        return {"images": view, "labels": self.shots[sample].label}


class Tests(Dataset):
    """Test views, centre-cropped."""

    def __init__(self, examples: Sequence[Example], side: int) -> None:
        self.examples, self.side = examples, side

    def __getitem__(self, place: int) -> dict[str, Any]:
        example = self.examples[place]
        return {"images": eval_view(read_image(example), self.side), "labels": example.label}


def batches_of(examples: int, batch: int = TEST_BATCH) -> list[list[int]]:
    """Batches of places that cover all examples once."""
    return [list(range(start, min(start + batch, examples))) for start in range(0, examples, batch)]
