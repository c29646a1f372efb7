"""A world as files: published by one rename, and only once all of it is written."""

import csv
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worlds.pictures import Picture, World
from sept.errors import ConfigError

PER_FOLDER = 1_000  # images of the pool


def already(folder: Path, recipe: Mapping[str, Any]) -> bool:
    """Is this very world there? Raises ConfigError for a folder that holds anything else."""
    if not folder.exists():
        return False
    try:
        there = json.loads((folder / "world.json").read_text())
    except (OSError, ValueError):
        there = {}
    if {key: there.get(key) for key in recipe} != dict(recipe):
        raise ConfigError(f"{folder} holds something else than this world; name another folder, or remove it")
    return True


def write(world: World, folder: Path, recipe: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Writes the world and tells what is in it, as `world.json` does. Paths of the pool follow a draw by seed."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    order = np.random.default_rng([seed, 1]).permutation(len(world.pool))
    rows = []
    for place, row in enumerate(order):
        picture = world.pool[row]
        name = f"{place // PER_FOLDER:03d}/{place:06d}.png"
        save(picture, part / "pool" / name)
        rows.append((f"pool/{name}", picture.kind, picture.source))
        if picture.kind == world.kind:
            link = part / "oracle" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(part / "pool" / name, link)
    for split, classes in (("train", world.train), ("test", world.test)):
        for label, pictures in classes.items():
            for place, picture in enumerate(pictures):
                save(picture, part / "task" / split / label / f"{place:03d}.png")
    with open(part / "kinds.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "kind", "source"), *rows])
    told = {**recipe, **counts(world)}
    (part / "world.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.rename(folder)
    return told


def save(picture: Picture, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.image.save(path, format="PNG")


def counts(world: World) -> dict[str, Any]:
    """How many images there are of what, for `world.json`."""
    kinds: dict[str, int] = {}
    for picture in world.pool:
        kinds[picture.kind] = kinds.get(picture.kind, 0) + 1
    sizes = {
        split: [len(pictures) for pictures in classes.values()]
        for split, classes in (("train", world.train), ("test", world.test))
    }
    sources = {
        split: sorted({each.source for pictures in classes.values() for each in pictures})
        for split, classes in (("train", world.train), ("test", world.test))
    }
    return {
        "pool": len(world.pool),
        "kind": world.kind,
        "of the kind": kinds.get(world.kind, 0),
        "classes": sorted(world.train),
        "images a class": {split: [min(found), max(found)] for split, found in sizes.items()},
        "left out": world.removed,
        "kinds": dict(sorted(kinds.items())),
        "task sources": sources,
    }
