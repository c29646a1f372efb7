"""Miniatures of the official layouts of the detection data sets: names, folders and formats as released, real images.

Each maker gives what it put there: {image id: [(class, left, top, right, bottom, ignored)]}, pixels from 0, the right
and bottom edges outside the box.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Truth = tuple[str, int, int, int, int, bool]
Boxes = dict[str, list[Truth]]

VOC_SIZE, CITY_SIZE, LOGO_SIZE = (60, 40), (64, 32), (50, 30)


def image(path: Path, size: tuple[int, int], shade: int = 90, **options) -> Path:
    """A picture without noise: redder to the right, greener downwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.stack([columns * 4 % 256, rows * 6 % 256, np.full_like(rows, shade % 256)], axis=-1)
    Image.fromarray(pixels.astype(np.uint8)).save(path, **options)
    return path


def voc_xml(path: Path, size: tuple[int, int], objects: Iterable[Truth]) -> Path:
    """As the VOC devkit writes it: corners from 1, all inclusive; a person has a head with a box of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation>\n\t<folder>VOC</folder>\n\t<filename>/etc/{path.stem}.jpg</filename>\n"
        "\t<source><database>The VOC Database</database><image>flickr</image></source>\n"
        f"\t<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>\n"
        "\t<segmented>0</segmented>\n" + "".join(map(_object, objects)) + "</annotation>\n",
        encoding="utf-8",
    )
    return path


def _box(left: int, top: int, right: int, bottom: int) -> str:
    return f"<bndbox><xmax>{right}</xmax><xmin>{left + 1}</xmin><ymax>{bottom}</ymax><ymin>{top + 1}</ymin></bndbox>"


def _object(truth: Truth) -> str:
    name, *corners, difficult = truth
    part = f"<part><name>head</name>{_box(0, 0, 1, 1)}</part>" if name == "person" else ""
    return (
        f"\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Rear</pose>\n\t\t<truncated>0</truncated>\n"
        f"\t\t<difficult>{int(difficult)}</difficult>\n\t\t{_box(*corners)}{part}\n\t</object>\n"
    )


VOC_OBJECTS: list[list[Truth]] = [
    [("chair", 3, 4, 20, 30, False), ("aeroplane", 0, 0, 60, 40, False)],
    [("person", 10, 5, 11, 6, True), ("tvmonitor", 30, 20, 59, 39, False)],
    [("dog", 1, 2, 30, 25, False), ("dog", 31, 2, 50, 25, True)],
]
VOC_LISTS = {
    "VOC2007": {"train": ["000005", "000012"], "val": ["000007"], "test": ["000001", "000002"]},
    "VOC2012": {"train": ["2008_000002"], "val": ["2008_000003", "2011_003353"]},
}


def make_voc(root: Path) -> Boxes:
    """VOCdevkit/VOC2007 and VOC2012 below `root`: 6 images of trainval, 2 of test; 2012 has others in no list."""
    put: Boxes = {}
    for year, lists in VOC_LISTS.items():
        base = root / "VOCdevkit" / year
        for name in [name for names in lists.values() for name in names]:
            objects = VOC_OBJECTS[len(put) % len(VOC_OBJECTS)]
            image(base / "JPEGImages" / f"{name}.jpg", VOC_SIZE, len(put) * 20)
            voc_xml(base / "Annotations" / f"{name}.xml", VOC_SIZE, objects)
            put[f"{year}/JPEGImages/{name}.jpg"] = objects
        for split, names in {**lists, "trainval": sorted(lists["train"] + lists["val"])}.items():
            write_list(base, split, names)
            write_list(base, f"chair_{split}", [f"{name} -1" for name in names])
    extra = root / "VOCdevkit" / "VOC2012"  # 2012 also has images for segmentation and actions alone
    image(extra / "JPEGImages" / "2007_000027.jpg", VOC_SIZE)
    voc_xml(extra / "Annotations" / "2007_000027.xml", VOC_SIZE, VOC_OBJECTS[0])
    return put


def write_list(base: Path, name: str, lines: Sequence[str]) -> Path:
    path = base / "ImageSets" / "Main" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# (label, left, top, right, bottom), drawn in this order; the second car is half behind the first bus
CITY_OBJECTS = [
    ("road", 0, 16, 64, 32),
    ("sky", 0, 0, 64, 10),
    ("car", 2, 12, 12, 20),
    ("car", 14, 12, 24, 20),
    ("bus", 19, 8, 30, 22),
    ("persongroup", 40, 12, 50, 20),
    ("person", 52, 11, 55, 21),
    ("caravan", 56, 11, 60, 21),
    ("license plate", 3, 18, 5, 19),
    ("pole", 52, 0, 53, 32),
    ("bicycle", 60, 30, 70, 34),  # over the edge
]
CITY_BOXES: list[Truth] = [
    ("person", 40, 12, 50, 20, True),
    ("person", 53, 11, 55, 21, False),
    ("car", 2, 12, 12, 20, False),
    ("car", 14, 12, 19, 20, False),
    ("bus", 19, 8, 30, 22, False),
    ("bicycle", 60, 30, 64, 32, False),
]
CITY_VALUES = {
    **{"road": 7, "sky": 23, "car": 26000, "bus": 28000, "persongroup": 24, "person": 24000, "caravan": 29000},
    **{"pole": 17, "bicycle": 33000},
}
CITIES = {"train": {"aachen": 2, "bochum": 1}, "val": {"frankfurt": 2}, "test": {"berlin": 1}}


def city_map() -> np.ndarray:
    """(H, W) uint16, the instance map of `CITY_OBJECTS`."""
    values = np.zeros(CITY_SIZE[::-1], np.uint16)
    seen: dict[str, int] = {}
    for label, left, top, right, bottom in CITY_OBJECTS:
        if label in CITY_VALUES:
            value = CITY_VALUES[label]
            values[top:bottom, left:right] = value + (seen.get(label, 0) if value >= 1000 else 0)
            seen[label] = seen.get(label, 0) + 1
    return values


def city_polygons() -> dict:
    """The same as polygons, whose corners are pixels of the object, and one object that was deleted."""
    objects = [
        {"label": label, "polygon": [[left, top], [right - 1, top], [right - 1, bottom - 1], [left, bottom - 1]]}
        for label, left, top, right, bottom in CITY_OBJECTS
    ]
    objects.insert(2, {"label": "car", "polygon": [[0, 0], [9, 0], [9, 9]], "deleted": 1})
    return {"imgWidth": CITY_SIZE[0], "imgHeight": CITY_SIZE[1], "objects": objects}


def make_cityscapes(root: Path) -> Boxes:
    """leftImg8bit and gtFine in `root`: 3 training and 2 validation images, all with the same objects; 1 for test."""
    put: Boxes = {}
    for split, cities in CITIES.items():
        for city, count in cities.items():
            for n in range(count):
                name = f"{city}/{city}_{n:06d}_000019"
                image(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png", CITY_SIZE, 30 * len(put))
                truth = root / "gtFine" / split / f"{name}_gtFine_"
                truth.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(city_map()).save(f"{truth}instanceIds.png")
                Image.fromarray(np.zeros(CITY_SIZE[::-1], np.uint8)).save(f"{truth}labelIds.png")
                Path(f"{truth}polygons.json").write_text(json.dumps(city_polygons()))
                if split != "test":
                    put[f"leftImg8bit/{split}/{name}_leftImg8bit.png"] = CITY_BOXES
    return put


LOGO_IMAGES = {
    "Food/Carrabba's Italian Grill": 6,
    "Food/Amora": 5,
    "Food/Nestlé": 7,
    "Food/few": 2,
    "Clothes/Amora": 5,
    "Clothes/new balance-1": 9,
}


def make_logodet(root: Path, counts: Mapping[str, int] = LOGO_IMAGES) -> Boxes:
    """LogoDet-3K below `root`; file names repeat across brands, annotations write brands in other case."""
    put: Boxes = {}
    for place, (name, count) in enumerate(counts.items()):
        for n in range(count):
            stem = root / "LogoDet-3K" / name / str(n + 1)
            image(stem.with_suffix(".jpg"), LOGO_SIZE, 7 * (10 * place + n))
            logos = [(name.split("/")[1].lower(), n, 2, n + 10, 12, False), (name.split("/")[1], 20, 3, 50, 30, False)]
            voc_xml(stem.with_suffix(".xml"), LOGO_SIZE, logos[: 1 + n % 2])
            put[f"{name}/{n + 1}.jpg"] = [(name, *logo[1:]) for logo in logos[: 1 + n % 2]]
    return put
