"""Miniatures of the official layouts, with real JPEGs and annotation files of the official structure.

Every maker returns the folder it made, which a reader can be given. Images of a class share a colour, so that a
classifier can learn them.
"""

import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (40, 32)
VARIANTS = 16
SUPERS = ("Plantae", "Insecta", "Aves", "Reptilia", "Mammalia", "Fungi", "Amphibia", "Mollusca", "Animalia")
SUPERS += ("Arachnida", "Actinopterygii", "Chromista", "Protozoa")
FOODS = ("apple_pie", "baby_back_ribs", "crème_brûlée", "hot and sour soup", "sushi")
SCENES = ("/a/airfield", "/a/apartment_building/outdoor", "/b/bakery/shop", "/z/zen_garden")


def jpeg(label: int, number: int) -> bytes:
    """A JPEG of a colour of its class and noise of its own; after `VARIANTS` images of a class they repeat."""
    return _jpeg(label, number % VARIANTS)


@cache
def _jpeg(label: int, number: int) -> bytes:
    rng = np.random.default_rng((label, number))
    colour = np.random.default_rng(label).integers(0, 256, 3)
    pixels = np.clip(colour + rng.integers(-20, 20, (SIZE[1], SIZE[0], 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def put(path: Path, label: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(label, number))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def save_mat(path: Path, content: Mapping[str, Any]) -> None:
    """Compressed, as MATLAB writes since version 7; the official files are."""
    savemat(path, content, do_compression=True)


def make_flowers102(root: Path, classes: int = 3, train: int = 2, test: int = 3, valid: int = 1) -> Path:
    """root/flowers-102: labels as uint8 (1, N), the parts of setid.mat as uint16 (1, n), image numbers from 1."""
    folder = root / "flowers-102"
    labels: list[int] = []
    parts: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    for part, count in (("tstid", test), ("valid", valid), ("trnid", train)):
        for label in reversed(range(classes)):
            for _ in range(count):
                labels.append(label + 1)
                parts[part].append(len(labels))
                put(folder / "jpg" / f"image_{len(labels):05d}.jpg", label, len(labels))
    save_mat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    save_mat(folder / "setid.mat", {part: np.array([ids], np.uint16) for part, ids in parts.items()})
    return folder


def cars_annotations(rows: list[tuple[str, int | None]]) -> dict[str, np.ndarray]:
    """A struct array (1, N) of boxes, class and fname; without classes, as in the devkit's test file, for None."""
    boxes = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    fields = [*boxes, *(["class"] if rows[0][1] is not None else []), "fname"]
    table = np.empty((1, len(rows)), [(field, object) for field in fields])
    for place, (name, number) in enumerate(rows):
        values = {**dict.fromkeys(boxes, np.uint16(7)), "class": None if number is None else np.uint8(number)}
        table[0, place] = tuple({**values, "fname": name}[field] for field in fields)
    return {"annotations": table}


def make_stanford_cars(root: Path, classes: int = 3, train: int = 2, test: int = 2) -> Path:
    """root/stanford_cars, with class names like the official ones: spaces, a slash."""
    folder = root / "stanford_cars"
    names = np.empty((1, classes), object)
    names[0] = [f"Ram C/V Cargo Van {2000 + label}" for label in range(classes)]
    (folder / "devkit").mkdir(parents=True)
    save_mat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    for split, count in (("train", train), ("test", test)):
        rows = [(f"{number:05d}.jpg", 1 + number % classes) for number in range(1, 1 + classes * count)]
        for number, (name, label) in enumerate(rows):
            put(folder / f"cars_{split}" / name, label - 1, number)
        if split == "test":
            save_mat(folder / "cars_test_annos_withlabels.mat", cars_annotations(rows))
            rows = [(name, None) for name, _ in rows]
        save_mat(folder / "devkit" / f"cars_{split}_annos.mat", cars_annotations(rows))
    return folder


def make_food101(root: Path, classes: int = 3, train: int = 4, test: int = 2) -> Path:
    """root/food-101, with both .json and .txt lists and classes.txt; names as official, and some in Unicode."""
    folder = root / "food-101"
    names = sorted(FOODS[label] if label < len(FOODS) else f"food_{label:03d}" for label in range(classes))
    for split, first, count in (("train", 0, train), ("test", train, test)):
        lists = {name: [f"{name}/{1000 - number}" for number in range(first, first + count)] for name in names}
        for label, images in enumerate(lists.values()):
            for number, image in enumerate(images):
                put(folder / "images" / f"{image}.jpg", label, first + number)
        write_text(folder / "meta" / f"{split}.json", json.dumps(lists))
        write_text(
            folder / "meta" / f"{split}.txt", "".join(f"{image}\n" for images in lists.values() for image in images)
        )
    write_text(folder / "meta" / "classes.txt", "\n".join(names) + "\n")
    return folder


def make_places365(root: Path, classes: int = 3, train: int = 4, test: int = 2, size: str = "256") -> Path:
    """`root` itself, with images at `size` "256" or "large"; the lists are in no order, as the official ones."""
    scenes = [SCENES[label] if label < len(SCENES) else f"/s/scene_{label:03d}" for label in range(classes)]
    write_text(root / "categories_places365.txt", "".join(f"{scene} {n}\n" for n, scene in enumerate(scenes)))
    trained = [
        (f"{scene}/{n:08d}.jpg", label, n) for n in range(train, 0, -1) for label, scene in enumerate(scenes)
    ]  # official names have a leading slash
    tested = [(f"Places365_val_{n:08d}.jpg", n % classes, n) for n in range(1, 1 + classes * test)]
    for folder, file, rows in (
        (f"data_{size}_standard", "places365_train_standard.txt", trained),
        (f"val_{size}", "places365_val.txt", tested),
    ):
        write_text(root / file, "".join(f"{name} {label}\n" for name, label, _ in rows))
        for name, label, number in rows:
            put(root / folder / name.lstrip("/"), label, number)
    return root


def make_inat2017(root: Path, species: Mapping[str, int] | None = None, train: int = 10, test: int = 2) -> Path:
    """`root` itself: so many species of each super-category (by default two of Plantae, Insecta and Aves).

    Numbers of categories and images are shuffled against the order of the tables, as in the official files.
    """
    species = dict.fromkeys(SUPERS[:3], 2) if species is None else species
    names = [(above, f"{above[:4]}us n° {n}") for above, count in species.items() for n in range(count)]
    categories = [
        {"id": len(names) - 1 - place, "name": name, "supercategory": above}
        for place, (above, name) in enumerate(names)
    ]
    for split, count in (("train", train), ("val", test)):
        rows = [(category, number) for number in range(count) for category in categories]
        files = [
            f"train_val_images/{category['supercategory']}/{category['name']}/{split}{number:04x}.jpg"
            for category, number in rows
        ]
        for (category, number), file in zip(rows, files, strict=True):
            put(root / file, int(category["id"]), number)
        images = [{"id": 5000 - place, "file_name": file, "width": SIZE[0]} for place, file in enumerate(files)]
        annotations = [
            {"id": place, "image_id": 5000 - place, "category_id": category["id"]}
            for place, (category, _) in enumerate(rows)
        ]
        content = {"images": images, "annotations": annotations[::-1], "categories": categories}
        write_text(root / f"{split}2017.json", json.dumps(content))
    return root


def make_csv(root: Path, classes: int = 3, train: int = 4, test: int = 2, split: bool = True) -> Path:
    """root/list.csv and its images below root/my images; without `split`, all of a class's images are one."""
    rows = ["path,label,split" if split else "path,label"]
    for label in range(classes):
        for number in range(train + test):
            name = f"my images/ü {label}, {number}.jpg"
            put(root / name, label, number)
            cells = [f'"{name}"', f"class {label}", *(["train" if number < train else "test"] if split else [])]
            rows.append(",".join(cells))
    write_text(root / "list.csv", "\n".join(rows) + "\n")
    return root / "list.csv"
