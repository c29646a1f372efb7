"""Food-101 from its official files: images/<class>/<id>.jpg and meta/{train,test}.json, or the same lists as .txt."""

from pathlib import Path

from sept.data.tasks.annotations import read_json, read_lines
from sept.data.tasks.layout import Layout
from sept.data.tasks.listing import Listing, build
from sept.data.tasks.task import Task
from sept.errors import DataError

LAYOUT = Layout("food-101", ("images/apple_pie/1005649.jpg", "meta/train.json", "meta/test.json"))


def read(root: Path) -> Task:
    """The official training and test images (75,750 and 25,250). `root` is food-101 or the folder that holds it.

    Classes are sorted by their bytes, the order of meta/classes.txt. A list is read from its .json file where there
    is one, else from its .txt file.
    """
    root = LAYOUT.find(root)
    found = [_entries(root / "meta" / split) for split in ("train", "test")]
    classes = sorted({name for _, entries in found for name, _ in entries})
    labels = {name: label for label, name in enumerate(classes)}
    train, test = (
        Listing(source, [(f"images/{image}.jpg", labels[name]) for name, image in entries]) for source, entries in found
    )
    return build(root, classes, train, test, LAYOUT)


def _entries(stem: Path) -> tuple[Path, list[tuple[str, str]]]:
    """The file that lists a split, and (class, "class/id") of its images."""
    source = stem.with_suffix(".json")
    if not source.exists() and stem.with_suffix(".txt").exists():
        source = stem.with_suffix(".txt")
        return source, [_entry(source, number, line) for number, line in enumerate(read_lines(source, LAYOUT), start=1)]
    entries = []
    for name, images in read_json(source, LAYOUT).items():
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            raise DataError(f"{source}: class {name!r} holds no list of image names; fetch the file again")
        entries += [(name, image) for image in images]
    return source, entries


def _entry(source: Path, number: int, line: str) -> tuple[str, str]:
    name, _, image = line.partition("/")
    if not name or not image:
        raise DataError(f"{source}, line {number}: {line!a} is not like 'apple_pie/1005649'; fetch the file again")
    return name, line
