"""Held-back world `cliparts`: clip art and photographic stamps; the task is to name 10 sorts of living things and food.

Training and test images are different drawings and photographs: what has equal names but for numbers and the words for
black and white is one. Authors known by name, who drew many pictures of a style, are on one side. The pool has all
other pictures, of all categories, but of the test's authors and drawings none of living things or food.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.worlds.drawing import blank, on_white
from benchmarks.worlds.packages import Package, words
from benchmarks.worlds.pictures import Picture, World, grouped, spread

VERSION = 1
SIDE = 64  # px
KIND = "nature"
PACKAGES = words("openclipart-png tuxpaint-stamps-default")
TRAIN_IMAGES, TEST_IMAGES = 16, 20  # of a class

CLASSES = {  # folders of either package, with those below them
    "beverages": ("food/beverages",),
    "birds": ("animals/birds",),
    "bugs": ("animals/bugs", "animals/insects"),
    "desserts": ("food/desserts", "food/dessert"),
    "dishes": ("food/breads_and_carbs", "food/meats_and_eggs"),
    "fish": ("animals/fish",),
    "flowers": ("plants/flowers",),
    "fruit": ("food/fruit",),
    "mammals": ("animals/mammals",),
    "vegetables": ("food/vegetables",),
}
ROOTS = ("/openclipart/png/", "/tuxpaint/stamps/")
MISPLACED = set(  # in folders of other things, or without the image that they were made of
    words("""
        cat_scrathing_post_benji_01 duck_yellow_ii_kurt_cagl_ kallisti-grenade_1_nurbl_01 mirjam_meijer_mirjam_mei_01
        turkey_on_platter_01 turkey_platter_01_with_fruit_and_vegitables_01 virus_andreas_nilsson_01
    """)
)
NATURE = ("animals", "food", "plants")

# Authors of many pictures, as their names are cut in the files' names.
AUTHORS = {
    "architetto": ("train", r"archi|_arc_"),
    "jean-victor": ("train", r"jean-|_victor_bal"),
    "mateya": ("train", r"mateya"),
    "benji park": ("train", r"benji"),
    "simple": ("train", r"_simple|simple_"),
    "tanguy": ("train", r"tanguy"),
    "nicu": ("test", r"nicu"),
    "contour": ("test", r"contour"),
    "straight lines": ("test", r"drawn_with_strai"),
    "mimooh": ("test", r"mimooh"),
    "gerald": ("test", r"geral"),
    "menu": ("test", r"menu"),
}
SHARES = {"train": 0.32, "test": 0.4, "pool": 0.28}  # of all others, a drawing at a time


@dataclass(frozen=True)
class Clip:
    """A file with what its path tells: its category's folders, its class if it has one, and its author."""

    path: Path
    category: str
    label: str | None
    author: str


def clip(path: Path) -> Clip | None:
    """The picture at .../ROOT/CATEGORY/NAME.png; None for any other file."""
    inside = next((path.as_posix().partition(root)[2] for root in ROOTS if root in path.as_posix()), "")
    category, _, _ = inside.rpartition("/")
    if not category:
        return None
    found = [name for name, folders in CLASSES.items() if f"{category}/".startswith(tuple(f"{f}/" for f in folders))]
    return Clip(path, category, found[0] if found else None, author(path.stem.lower()))


def author(stem: str) -> str:
    """Who drew it, of those named above; else what the names of its variants have in common."""
    for name, (_, pattern) in AUTHORS.items():
        if re.search(pattern, stem):
            return name
    alone = re.sub(r"(_bw|_ganson|[\d_.-])+$", "", stem)
    return re.sub(r"[\d-]|_bw|_ganson|s$", "", alone)


def sides(clips: Sequence[Clip], rng: np.random.Generator) -> dict[str, str]:
    """The side of each author that has a place in a class: as named, else a class at a time by a draw."""
    found = {name: side for name, (side, _) in AUTHORS.items()}
    for name in CLASSES:
        others = sorted({each.author for each in clips if each.label == name} - found.keys())
        cuts = (np.cumsum([*SHARES.values()]) * len(others)).round()
        for place, row in enumerate(rng.permutation(len(others))):
            found[others[row]] = list(SHARES)[int(np.searchsorted(cuts, place, side="right"))]
    return found


def ambiguous(clips: Sequence[Clip]) -> set[str]:
    """Names of files that stand in the folders of two classes: of a dolphin among fish and mammals."""
    labels: dict[str, set[str]] = {}
    for each in clips:
        labels.setdefault(each.path.stem, set()).update([each.label] if each.label else [])
    return {stem for stem, found in labels.items() if len(found) > 1}


def world(packages: Mapping[str, Package], seed: int) -> World:
    """Pictures of both packages."""
    rng = np.random.default_rng([seed, 0])
    clips = [each for package in packages.values() for path in package.files(".png") if (each := clip(path))]
    unclear, side = ambiguous(clips), sides(clips, rng)
    images = {each.path: on_white(each.path, SIDE, trim=True) for each in clips}
    shown = [each for each in clips if (image := images[each.path]) and not blank(image)]

    def picture(each: Clip) -> Picture:
        top = each.category.split("/")[0]
        image = images[each.path]
        assert image is not None  # of those that are shown
        return Picture(image, KIND if top in NATURE else top, each.author)

    usable = [each for each in shown if each.label and each.path.stem not in unclear | MISPLACED]
    task: dict[str, dict[str, list[Picture]]] = {"train": {}, "test": {}}
    taken: set[Path] = set()
    for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        own = [each for each in usable if side.get(each.author) == split]
        for name, found in grouped(own, lambda each: each.label or "").items():
            chosen = spread(found, lambda each: each.author, count, rng)
            taken.update(each.path for each in chosen)
            task[split][name] = [picture(each) for each in chosen]
    rest = [each for each in shown if each.path not in taken and (side.get(each.author) != "test" or not natural(each))]
    return World("cliparts", KIND, [picture(each) for each in rest], task["train"], task["test"])


def natural(each: Clip) -> bool:
    return each.category.split("/")[0] in NATURE
