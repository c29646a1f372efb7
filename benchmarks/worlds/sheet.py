"""A contact sheet of a world: `python -m benchmarks.worlds.sheet DIR SHEET.png`.

A row a class, ten training images left and ten test images right; below, a hundred images of the pool.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

CELL, EACH, POOL, GAP = 64, 10, 100, 16
GROUND = (200, 60, 60)


def sheet(folder: Path, seed: int = 0) -> Image.Image:
    """The sheet of a world that is there."""
    rng = np.random.default_rng(seed)
    classes = sorted(path.name for path in (folder / "task" / "train").iterdir())
    pool = sorted((folder / "pool").rglob("*.png"))
    wide = 2 * EACH
    rows = len(classes) + -(-min(POOL, len(pool)) // wide)
    drawn = Image.new("RGB", (wide * CELL + GAP, rows * CELL + GAP), GROUND)
    for row, name in enumerate(classes):
        for half, split in enumerate(("train", "test")):
            found = sorted((folder / "task" / split / name).iterdir())
            for place, chosen in enumerate(sorted(rng.permutation(len(found))[:EACH])):
                paste(drawn, found[chosen], half * (EACH * CELL + GAP) + place * CELL, row * CELL)
    for place, chosen in enumerate(rng.permutation(len(pool))[:POOL]):
        row, column = divmod(place, wide)
        paste(drawn, pool[chosen], column * CELL, (len(classes) + row) * CELL + GAP)
    return drawn


def paste(drawn: Image.Image, path: Path, x: int, y: int) -> None:
    with Image.open(path) as image:
        drawn.paste(image.convert("RGB").resize((CELL - 2, CELL - 2)), (x, y))


if __name__ == "__main__":
    sheet(Path(sys.argv[1])).save(sys.argv[2])
