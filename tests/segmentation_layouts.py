"""Miniatures of the official layouts of the segmentation data sets: names, folders and formats as released.

Each maker gives the masks it put there, {image id: (H, W) uint8 as in the file}.
"""

from pathlib import Path

import numpy as np
from detection_layouts import image
from PIL import Image

VOC_SIZE, ADE_SIZE = (60, 40), (50, 30)
VOC_SPLITS = {"train": ["2007_000032", "2007_000039", "2011_003256"], "val": ["2007_000033", "2007_000042"]}
ADE_SPLITS = {"training": ("train", 4), "validation": ("val", 2)}
ADE_NAMES = ["wall", "building, edifice", "sky", "bed "] + [f"thing {number}" for number in range(5, 151)]


def save_mask(path: Path, values: np.ndarray, *, colours: bool = False) -> Path:
    """A PNG of one byte a pixel; with `colours` a palette's, as VOC has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(values.astype(np.uint8))
    if colours:
        mask.putpalette(np.arange(768).astype(np.uint8).tobytes())
    mask.save(path)
    return path


def blocks(size: tuple[int, int], ground: int, *objects: tuple[int, int, int, int, int]) -> np.ndarray:
    """(H, W) of `ground` with rectangles (value, left, top, right, bottom)."""
    values = np.full(size[::-1], ground, np.uint8)
    for value, left, top, right, bottom in objects:
        values[top:bottom, left:right] = value
    return values


def make_voc_masks(root: Path) -> dict[str, np.ndarray]:
    """VOCdevkit/VOC2012 below `root`; one image of no list, one mask of a kind that is not used."""
    base, put = root / "VOCdevkit" / "VOC2012", {}
    for place, name in enumerate([name for names in VOC_SPLITS.values() for name in names]):
        values = blocks(VOC_SIZE, 0, (255, 4, 4, 32, 32), (1 + 4 * place, 6, 6, 30, 30))
        image(base / "JPEGImages" / f"{name}.jpg", VOC_SIZE, 30 * place)
        save_mask(base / "SegmentationClass" / f"{name}.png", values, colours=True)
        save_mask(base / "SegmentationObject" / f"{name}.png", values > 0, colours=True)
        put[f"VOC2012/JPEGImages/{name}.jpg"] = values
    image(base / "JPEGImages" / "2008_000002.jpg", VOC_SIZE)
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, listed in (VOC_SPLITS | {"trainval": sorted(VOC_SPLITS["train"] + VOC_SPLITS["val"])}).items():
        (lists / f"{name}.txt").write_text("".join(f"{line}\n" for line in listed))
    return put


def make_ade20k(root: Path) -> dict[str, np.ndarray]:
    """ADEChallengeData2016 below `root`."""
    base, put, scenes = root / "ADEChallengeData2016", {}, []
    for split, (word, count) in ADE_SPLITS.items():
        for n in range(1, count + 1):
            name = f"ADE_{word}_{n:08d}"
            values = blocks(ADE_SIZE, 0, (1, 0, 0, 25, 30), (150 if n % 2 else 3, 25, 0, 45, 20))
            image(base / "images" / split / f"{name}.jpg", ADE_SIZE, 40 * n)
            save_mask(base / "annotations" / split / f"{name}.png", values)
            put[f"images/{split}/{name}.jpg"] = values
            scenes.append(f"{name} airport_terminal\n")
    rows = [f"{number} \t0.1\t9\t1\t{name}\n" for number, name in enumerate(ADE_NAMES, 1)]
    (base / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "".join(rows))
    (base / "sceneCategories.txt").write_text("".join(scenes))
    return put
