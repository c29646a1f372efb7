"""iNaturalist 2017 from its official train2017.json and val2017.json: 1,000 of its 5,089 species, as in SEPT."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from sept.data.names import check_classes
from sept.data.tasks.annotations import read_json
from sept.data.tasks.inat_classes import CLASSES, choose, read_class_list
from sept.data.tasks.layout import Layout
from sept.data.tasks.listing import Listing, build, check_name
from sept.data.tasks.task import Task
from sept.errors import DataError

LAYOUT = Layout("", ("train2017.json", "val2017.json", "train_val_images/Insecta/Danaus plexippus/0a1b2c.jpg"))


class Split(NamedTuple):
    """An annotation file: "Super/species" by category id, and (file name, category id) of every image."""

    source: Path
    categories: dict[int, str]
    images: list[tuple[str, int]]


def read(root: Path, subset: str, seed: int, class_list: Path | None = None, classes: int = CLASSES) -> Task:
    """The official training images of some species, and their official validation images as the test.

    Which species: those `choose` draws by subset and seed, or those in the file `class_list`, when the other arguments
    are not used. Classes have the order of the official category numbers and are named "Super/species". Only images
    of these classes need to be there. A species may be without test images.
    """
    root = LAYOUT.find(root)
    train, test = _read_split(root / "train2017.json"), _read_split(root / "val2017.json")
    _refuse_contradiction(train, test)
    if class_list is None:
        counts = Counter(train.categories[category] for _, category in train.images)
        chosen = choose(counts, subset, seed, classes)
    else:
        chosen = read_class_list(class_list, set(train.categories.values()))
    ids = [category for category in sorted(train.categories) if train.categories[category] in chosen]
    names = [train.categories[category] for category in ids]
    return build(root, names, _listing(train, ids), _listing(test, ids), LAYOUT, all_tested=False)


def _listing(split: Split, ids: Collection[int]) -> Listing:
    labels = {category: label for label, category in enumerate(ids)}
    return Listing(split.source, [(name, labels[category]) for name, category in split.images if category in labels])


def _refuse_contradiction(train: Split, test: Split) -> None:
    for category, name in test.categories.items():
        if (other := train.categories.get(category)) != name:
            raise DataError(
                f"{test.source}: category {category} is {name!r}, but {other!r} in {train.source}; "
                "they are of different releases: fetch both again"
            )


def _read_split(source: Path) -> Split:
    content = read_json(source, LAYOUT)
    categories: dict[int, str] = {}
    for category, name, above in _table(source, content, "categories", {"id": int, "name": str, "supercategory": str}):
        if category in categories:
            raise DataError(f"{source}: category {category} occurs twice; fetch the file again")
        categories[category] = f"{above}/{name}"
    check_classes(source, list(categories.values()))
    of_image: dict[int, int] = {}
    for image, category in _table(source, content, "annotations", {"image_id": int, "category_id": int}):
        if image in of_image:
            raise DataError(f"{source}: image {image} has two annotations; fetch the file again")
        if category not in categories:
            raise DataError(f"{source}: image {image} is of category {category}, which is not listed; fetch it again")
        of_image[image] = category
    return Split(source, categories, _images(source, content, of_image))


def _images(source: Path, content: dict[str, Any], of_image: dict[int, int]) -> list[tuple[str, int]]:
    """(file name, category id) of every image; `of_image` has the category of each image id."""
    images = []
    for number, (image, name) in enumerate(_table(source, content, "images", {"id": int, "file_name": str}), start=1):
        check_name(source, number, name)
        category = of_image.pop(image, None)
        if category is None:
            raise DataError(f"{source}: image {image} ({name}) has no annotation or is listed twice; fetch it again")
        images.append((name, category))
    if of_image:
        raise DataError(f"{source}: {len(of_image):,} annotations are of images not listed, as {min(of_image)}")
    return images


def _table(source: Path, content: dict[str, Any], table: str, fields: dict[str, type]) -> list[tuple[Any, ...]]:
    """The fields of each row of a table, in order. Raises DataError for a missing table, or a field of another type."""
    rows = content.get(table)
    if not isinstance(rows, list):
        raise DataError(f"{source}: lacks the list {table!r}; fetch the file again")
    for number, row in enumerate(rows, start=1):
        for field, kind in fields.items():
            if not isinstance(row, dict) or type(row.get(field)) is not kind:
                raise DataError(
                    f"{source}: {table} entry {number:,} lacks {field!r}, or it is no {kind.__name__}; "
                    "fetch the file again"
                )
    return [tuple(row[field] for field in fields) for row in rows]
