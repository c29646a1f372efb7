"""Held-back world `photos`: parts of photographs and photographic textures; the task is to name 10 materials.

All images of the task are of the textures of UFO: Alien Invasion, which are named by material. Those of a material, in
the order of their names, are cut into three runs: training, test and pool, so that variants of a texture, which stand
beside each other, are on one side but for those at a cut. The pool's other materials are OpenArena's, less files that
both games have. The rest of the pool is other textures of games, wallpapers, icons and letters.
"""

import re
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from benchmarks.worlds import fonts, icons
from benchmarks.worlds.drawing import blank, cells, on_white, opened
from benchmarks.worlds.packages import Package, words
from benchmarks.worlds.pictures import Picture, World, distinct, spread
from benchmarks.worlds.scripts import SCRIPTS, letters

VERSION = 1
SIDE, TEXTURE, SCENE = 64, 128, 512  # px: an image; the shorter side of a texture, and of a wallpaper, it is cut of
KIND = "materials"
TASK, OTHER = "ufoai-textures", "openarena-081-textures"
WALLPAPERS = words("""
    gnome-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds plasma-workspace-wallpapers
    ukui-wallpapers
""")
PACKAGES = [TASK, OTHER, "colobot-common-textures", *WALLPAPERS, "oxygen-icon-theme", "fonts-dejavu-core"]
TRAIN_IMAGES, TEST_IMAGES = 16, 24  # of a class
POOL = {"photographs": 4_000, "games": 4_000, "drawings": 1_500, "icons": 800, "letters": 800}  # images of a kind
RUNS = {"train": 0.33, "test": 0.4, "pool": 0.27}  # of a material's textures
EACH = 4  # images of a texture in the pool

CLASSES = {  # what a texture's name begins with
    "brick": r"(?:wall_|trak4_|brown_|gray_|ancient_|street|small|med|s)?brick",
    "carpet": r"carpet",
    "concrete": r"concrete(?!_[bry]_)",
    "dirt": r"dirt",
    "grass": r"grass(?!.*_way_)|newgrass",
    "metal": r"metall?\d|metal_[bgr]_|metal\.",
    "rock": r"rocks?\d|rocks?_|rock\.|pjrock|(?:black|brown|gr[ae]y|green|red)stone",
    "roof": r"roof",
    "tiles": r"tiles?\d|tiles?_",
    "wood": r"(?:s_)?wood(?!_chips|_palet)",
}
MAPS = re.compile(r"_(?:nm|sm|gm|rm)$")  # of a texture's relief and shine
PHOTOGRAPHS = re.compile(
    r"/lomiri-wallpapers-[^/]*/.*/(?!umang|Fossa|Painting)|/mate/nature/|/(?:BytheWater|ColdRipple|ColorfulCups|DarkestHour"
    r"|EveningGlow|FallenLeaf|Grey|Kite|OneStandsOut|Path|Volna|summer_1am)/contents/"
)
IMAGES = (".jpg", ".png", ".tga", ".webp")


def material(name: str) -> str | None:
    """The material that the name of a texture's file tells, or None."""
    stem = PurePosixPath(name).stem.lower()
    return next((label for label, start in CLASSES.items() if re.match(start, f"{stem}.")), None)


def members(package: Package) -> dict[str, bytes]:
    """The textures in a game's archives by their path, in order; no maps of relief and shine."""
    found = {}
    for path in package.files(".pk3"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                inside = PurePosixPath(name)
                if inside.suffix.lower() in IMAGES and not MAPS.search(inside.stem.lower()):
                    found[name] = archive.read(name)
    return dict(sorted(found.items()))


def runs(names: list[str], rng: np.random.Generator) -> dict[str, list[str]]:
    """Names in order, turned by a draw and cut into a run a side."""
    turn = int(rng.integers(len(names)))
    turned = names[turn:] + names[:turn]
    cuts = np.cumsum([0, *RUNS.values()]) * len(names)
    pairs = zip(cuts[:-1].round().astype(int), cuts[1:].round().astype(int), strict=True)
    return {side: turned[start:end] for side, (start, end) in zip(RUNS, pairs, strict=True)}


def textures(files: Mapping[str, bytes], names: list[str], kind: str, count: int) -> list[Picture]:
    """At most `count` parts of each of these textures."""
    found = []
    for name in names:
        image = opened(BytesIO(files[name]))
        if image is not None:
            parts = [each for each in cells(image, TEXTURE, SIDE) if not blank(each)]
            found += [Picture(each, kind, name) for each in parts[:count]]
    return found


def world(packages: Mapping[str, Package], seed: int) -> World:
    """Parts of the textures and wallpapers in these packages, icons and letters."""
    rng = np.random.default_rng([seed, 0])
    own, other = members(packages[TASK]), members(packages[OTHER])
    train, test, pool = {}, {}, []
    for label in CLASSES:
        side = runs([name for name in own if material(name) == label], rng)
        pictures = {split: textures(own, names, KIND, EACH) for split, names in side.items()}
        train[label] = spread(pictures["train"], lambda each: each.source, TRAIN_IMAGES, rng)
        test[label] = spread(pictures["test"], lambda each: each.source, TEST_IMAGES, rng)
        pool += pictures["pool"]
    shared = {PurePosixPath(name).stem for name in own}
    names = [name for name in other if PurePosixPath(name).stem not in shared]
    pool += textures(other, [name for name in names if material(name)], KIND, EACH)
    rest = textures(other, [name for name in names if not material(name)], "games", EACH)
    for kind, found in {**scenery(packages), "games": rest + planets(packages)}.items():
        pool += spread(distinct(found), lambda each: each.source, POOL[kind], rng)
    return World("photos", KIND, pool, train, test)


def planets(packages: Mapping[str, Package]) -> list[Picture]:
    """Textures of Colobot, which are files of their own."""
    files = packages["colobot-common-textures"].files(".png")
    return textures({path.name: path.read_bytes() for path in files}, [path.name for path in files], "games", EACH)


def scenery(packages: Mapping[str, Package]) -> dict[str, list[Picture]]:
    """Photographs and drawings that are wallpapers, icons and letters."""
    found: dict[str, list[Picture]] = {kind: [] for kind in POOL if kind != "games"}
    for path in wallpapers(packages):
        kind = "photographs" if PHOTOGRAPHS.search(path.as_posix()) else "drawings"
        image = opened(path)
        parts = cells(image, SCENE, SIDE) if image else []
        found[kind] += [Picture(each, kind, path.name) for each in parts if not blank(each)]
    for path in packages["oxygen-icon-theme"].files(".png"):
        icon = icons.icon(path)
        if icon and icon.pixels == SIDE and (image := on_white(path, SIDE)) and not blank(image):
            found["icons"].append(Picture(image, "icons", icon.theme))
    for font in fonts.read(packages["fonts-dejavu-core"].files(".ttf")):
        for script in SCRIPTS:
            if font.draws(letters(script)):
                drawn = fonts.drawn(font, letters(script), "letters").values()
                found["letters"] += [Picture(large(each.image), each.kind, each.source) for each in drawn]
    return found


def large(letter: Image.Image) -> Image.Image:
    return letter.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def wallpapers(packages: Mapping[str, Package]) -> Iterator[Path]:
    """Each wallpaper once: no previews, and of several shapes of one the largest."""
    for name in WALLPAPERS:
        largest: dict[Path, Path] = {}
        for path in packages[name].files(*IMAGES):
            if "screenshot" not in path.name:
                key = path.parent if "contents" in path.parts else path
                if key not in largest or path.stat().st_size > largest[key].stat().st_size:
                    largest[key] = path
        yield from largest.values()
