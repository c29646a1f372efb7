"""Development world `icons`: icons of desktop themes; the task is to name 19 devices that many themes draw.

Themes drawn after one another are on one side: GNOME's, MATE's, GNOME-Colors' and Adwaita's; Moka, Faba and Mint-Y;
Faenza and Obsidian; UKUI's. A theme of the training images gives the pool no icon by the name of a class.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.worlds.drawing import blank, on_white
from benchmarks.worlds.packages import Package, words
from benchmarks.worlds.pictures import Picture, World, distinct, grouped, spread

VERSION = 1
SIDE = 48  # px
KIND = "devices"
CLASSES = words("""
    audio-headphones audio-input-microphone camera-photo computer drive-harddisk drive-optical drive-removable-media
    input-gaming input-keyboard input-mouse input-tablet media-flash media-floppy media-optical multimedia-player
    network-wired phone printer video-display
""")
TRAIN_IMAGES, TEST_IMAGES, POOL_IMAGES = 16, 24, 12_000  # of a class, of a class, in all
LEAST = 32  # px: smaller icons are drawings of another sort
DRAWN = (32, 48, 64)  # px: each is a drawing of its own in most themes

PACKAGES = words("""
    adwaita-icon-theme elementary-xfce-icon-theme faba-icon-theme faenza-icon-theme gnome-accessibility-themes
    gnome-colors-common gnome-icon-theme lxde-icon-theme mate-icon-theme mint-y-icons moka-icon-theme
    obsidian-icon-theme oxygen-icon-theme paper-icon-theme tango-icon-theme ukui-themes yaru-theme-icon
""")
TRAIN = {"Adwaita", "Faba", "HighContrast", "Mint-Y", "Moka", "gnome", "gnome-colors-common", "mate"}
TEST = {"Tango", "Yaru", "elementary-xfce", "nuoveXT2", "oxygen"}
POOL = {"Faenza", "Obsidian", "Paper", "ukui", "ukui-classical", "ukui-fashion"}
CONTEXTS = {
    **{name: name for name in ("actions", "apps", "categories", "devices", "emblems", "emotes", "mimetypes", "places")},
    **{"status": "status", "mimes": "mimetypes", "web": "apps", "panel": "status", "stock": "actions"},
}


@dataclass(frozen=True)
class Icon:
    """An icon's file with what its path tells."""

    path: Path
    theme: str
    context: str
    name: str
    pixels: int  # of its side
    doubled: bool  # drawn for screens of twice as many pixels: one of half its side, scaled


def icon(path: Path) -> Icon | None:
    """The icon at .../icons/THEME/..., whose folders name its context and size; None for any other file."""
    if "icons" not in path.parts:
        return None
    theme, *folders = path.parts[path.parts.index("icons") + 1 : -1]
    contexts = [CONTEXTS[folder] for folder in folders if folder in CONTEXTS]
    sizes = [size for folder in folders if (size := re.fullmatch(r"(\d+)(?:x\d+)?(?:@(\d)x?)?", folder))]
    if not contexts or not sizes or path.stem.endswith("symbolic"):
        return None
    pixels, times = int(sizes[0][1]), int(sizes[0][2] or 1)
    return Icon(path, theme, contexts[0], path.stem, pixels * times, times > 1)


def world(packages: Mapping[str, Package], seed: int) -> World:
    """Icons of the themes in these packages."""
    rng = np.random.default_rng([seed, 0])
    files = [path for package in packages.values() for path in package.files(".png")]
    found = [each for path in files if (each := icon(path)) and each.pixels >= LEAST]
    train = classes(found, TRAIN, TRAIN_IMAGES, rng)
    test = classes(found, TEST, TEST_IMAGES, rng)
    rest = [each for each in found if each.theme in POOL or (each.theme in TRAIN and each.name not in CLASSES)]
    return World(
        "icons", KIND, thinned([each for each in rest if each.pixels in DRAWN and not each.doubled], rng), train, test
    )


def thinned(icons: list[Icon], rng: np.random.Generator) -> list[Picture]:
    """Pictures of all icons of the task's kind, and of as many others as make POOL_IMAGES."""
    kinds = grouped(distinct(drawn(icons)), lambda each: "own" if each.kind == KIND else "others")
    others = kinds["others"]
    count = POOL_IMAGES - len(kinds["own"])
    return kinds["own"] + [others[i] for i in rng.permutation(len(others))[:count]]


def drawn(icons: Iterable[Icon]) -> list[Picture]:
    """Pictures of the icons that can be read and show something, by context."""
    images = ((each, on_white(each.path, SIDE)) for each in icons)
    return [Picture(image, each.context, each.theme) for each, image in images if image and not blank(image)]


def classes(found: list[Icon], themes: set[str], count: int, rng: np.random.Generator) -> dict[str, list[Picture]]:
    """`count` pictures of each class from as many of the themes as draw it; none that stands for two classes."""
    own = [each for each in found if each.theme in themes and each.context == KIND and each.name in CLASSES]
    named = {name: distinct(drawn(icons)) for name, icons in grouped(own, lambda each: each.name).items()}
    times = Counter(picture.image.tobytes() for pictures in named.values() for picture in pictures)
    return {
        name: spread([p for p in pictures if times[p.image.tobytes()] == 1], lambda each: each.source, count, rng)
        for name, pictures in named.items()
    }
