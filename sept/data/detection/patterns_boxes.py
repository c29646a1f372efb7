"""A task in one folder of VOC's layout with classes of its own: JPEGImages, Annotations, ImageSets/Main, classes.txt.

The embedded world's detection task is written so.
"""

from pathlib import Path

from sept.data.annotated import by_id
from sept.data.detection.annotation import read_boxed, shown
from sept.data.detection.boxes import Boxed, DetectionTask
from sept.errors import DataError

IMAGES, ANNOTATIONS, LISTS, CLASSES = "JPEGImages", "Annotations", "ImageSets/Main", "classes.txt"
AGAIN = "draw the task again"


def read_patterns_boxes(root: Path) -> DetectionTask:
    """Trained on trainval, tested on test; ids are relative to `root`; boxes over an edge are cut there and counted.

    Raises DataError naming the file for a list that is missing, empty or names an image twice, for a missing or
    damaged image or annotation, for an unknown class, and for a box without area.
    """
    classes = _lines(root / CLASSES)
    splits = [_lines(root / LISTS / f"{name}.txt") for name in ("trainval", "test")]
    if both := set(splits[0]) & set(splits[1]):
        raise DataError(f"{root / LISTS / 'test.txt'}: {shown(min(both))} is in trainval.txt, too; {AGAIN}")
    train, test = ([_read_image(root, name, classes) for name in names] for names in splits)
    clipped = sum(count for _, count in train + test)
    return DetectionTask(classes, by_id(image for image, _ in train), by_id(image for image, _ in test), clipped)


def _lines(path: Path) -> list[str]:
    """One bare name a line, each once."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8"
        raise DataError(f"{path}: no list of names can be read there ({reason}); {AGAIN}") from error
    if not lines:
        raise DataError(f"{path}: is empty; {AGAIN}")
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.replace("-", "_").isidentifier() or line in seen:
            raise DataError(
                f"{path}: line {number}, {shown(line)}, is {'there twice' if line in seen else 'no bare name'}; {AGAIN}"
            )
        seen.add(line)
    return lines


def _read_image(root: Path, name: str, classes: list[str]) -> tuple[Boxed, int]:
    def label(found: str) -> int:
        if found not in classes:
            raise ValueError(f"{shown(found)} is none of the {len(classes)} classes in {CLASSES}")
        return classes.index(found)

    image_id = f"{IMAGES}/{name}.jpg"
    return read_boxed(image_id, root / image_id, root / ANNOTATIONS / f"{name}.xml", label)
