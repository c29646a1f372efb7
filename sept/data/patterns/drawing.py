"""Writes the embedded world to disk as real files: a pool in WebDataset tar shards, a task in class folders.

Every image is a pure function of (seed, its number), so any number of workers writes the same bytes.
"""

import csv
import io
import math
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sept.data.patterns.domains import DOMAINS, JUNK, TARGETS, UInt8Array, classes, draw
from sept.data.patterns.scenes import NEAR, draw_scene
from sept.data.settings import LEAST_DRAWN_SIDE
from sept.errors import ConfigError
from sept.runtime.lifeline import die_with_parent, spawn

SHARD_IMAGES = 4096
JPEG_QUALITY = 92
LABELS = "labels.csv"
POOL, TRAIN, TEST = 0, 1, 2  # index spaces: no image of one is an image of another
SPACE = 1 << 40


@dataclass(frozen=True)
class Mixture:
    """What a pool holds, as shares of it; the rest shows the domains that are no task's, evenly.

    target: each domain that is a task's, which are rare in a big pool. curated: clean, all domains evenly, as
    ImageNet-1k is to the paper's retriever. scenes: places of all domains evenly, with boards of several classes.
    """

    target: float = 0.08
    junk: float = 0.10
    curated: float = 0.25
    scenes: float = 0.0


MIXTURES = {  # by kind of pool
    "patterns": Mixture(),
    "patterns_scenes": Mixture(scenes=0.15),
    "patterns_wild": Mixture(target=0.04, junk=0.5, curated=0.0),
}


@dataclass(frozen=True)
class Item:
    """One image to draw."""

    name: str
    domain: str
    label: int
    number: int
    scene: bool = False

    def draw(self, side: int, seed: int) -> UInt8Array:
        index = POOL * SPACE + self.number
        if self.scene:
            return draw_scene(self.domain, self.label, side, seed, index, NEAR)[0]
        return draw(self.domain, self.label, side, seed, index)


def jpeg(pixels: UInt8Array) -> bytes:
    """A drawn image as JPEG, chroma at full resolution: at these sides subsampling would smear the strokes."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def pool_items(mixture: Mixture, images: int, seed: int) -> dict[str, list[Item]]:
    """What a pool of `images` holds by subset (`curated`, `wild`), in file order.

    Every class of a domain alike; a domain's images, and the scenes of its place, are the first ones of it whatever
    the size of the pool.
    """
    scenes = int(images * mixture.scenes)
    images -= scenes
    structured = [d for d in DOMAINS if d != JUNK]
    curated_each = int(images * mixture.curated) // len(structured)
    others = len(structured) - len(TARGETS)
    target, junk = int(images * mixture.target), int(images * mixture.junk)
    rest = images - junk - target * len(TARGETS)
    items: dict[str, list[Item]] = {"curated": [], "wild": []}
    for place, domain in enumerate(structured):
        left = place - sum(d in TARGETS for d in structured[:place])
        count = target if domain in TARGETS else rest // others + (left < rest % others)
        for i in range(count):
            subset = "curated" if i < curated_each else "wild"
            items[subset].append(Item("", domain, i % classes(domain), i))
    items["wild"] += [Item("", JUNK, 0, i) for i in range(junk)]
    for i in range(scenes):
        number, place = divmod(i, len(structured))
        domain = structured[place]
        items["wild"].append(Item("", domain, number % classes(domain), number, scene=True))
    return {name: _shuffled(chosen, seed, place) for place, (name, chosen) in enumerate(items.items())}


def _shuffled(items: list[Item], seed: int, place: int) -> list[Item]:
    order = np.random.default_rng((seed, place, 0x5EED)).permutation(len(items))
    return [replace(items[j], name=f"{n:09d}") for n, j in enumerate(order)]


def _write_shard(job: tuple[Path, list[Item], int, int]) -> None:
    path, items, side, seed = job
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for item in items:
                data = jpeg(item.draw(side, seed))
                member = tarfile.TarInfo(f"{item.name}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def check_pool(kind: str, images: int, side: int) -> None:
    """Raises ConfigError for a pool that cannot show every class."""
    mixture = MIXTURES[kind]
    fewest = math.ceil(max(map(classes, TARGETS)) / mixture.target / (1 - mixture.scenes))
    if images < fewest:
        raise ConfigError(f"pool.images={images} cannot hold every class of patterns; ask for {fewest} or more")
    if side < LEAST_DRAWN_SIDE:
        raise ConfigError(f"pool.side={side} is too small to show a motif; ask for {LEAST_DRAWN_SIDE} or more")


def draw_pool(folder: Path, kind: str, images: int, side: int, seed: int, workers: int) -> dict[str, int]:
    """Draws a pool into `folder`: curated-*.tar, wild-*.tar, and labels.csv that only checks read.

    kind: one of MIXTURES. Scenes are in wild-*.tar. The columns of labels.csv are shard, member, domain, label; a
    scene's domain is "<domain of its place> scene". Returns the images of each subset and of each domain. Raises
    ConfigError when `images` is too few for every class.
    """
    check_pool(kind, images, side)
    folder.mkdir(parents=True, exist_ok=True)
    subsets = pool_items(MIXTURES[kind], images, seed)
    shards = [
        (folder / f"{name}-{n:06d}.tar", items[first : first + SHARD_IMAGES], side, seed)
        for name, items in subsets.items()
        for n, first in enumerate(range(0, len(items), SHARD_IMAGES))
    ]
    in_processes(_write_shard, shards, workers)
    with open(folder / LABELS, "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("shard", "member", "domain", "label"))
        rows.writerows(
            (path.name, f"{i.name}.jpg", f"{i.domain} scene" if i.scene else i.domain, i.label)
            for path, items, _, _ in shards
            for i in items
        )
    counts = {name: len(items) for name, items in subsets.items()}
    held = Counter("scenes" if i.scene else i.domain for items in subsets.values() for i in items)
    return counts | {name: held[name] for name in (*DOMAINS, "scenes")}


def _write_image(job: tuple[Path, str, int, int, int, int]) -> None:
    path, domain, label, side, seed, index = job
    path.write_bytes(jpeg(draw(domain, label, side, seed, index)))


def in_processes(work: Callable[[Any], None], jobs: list[Any], workers: int) -> None:
    """Does the jobs in `workers` processes (spawned: a forked torch can hang), in this one when there is but one."""
    if workers <= 1:
        for job in jobs:
            work(job)
        return
    with spawn().Pool(workers, initializer=die_with_parent) as crew:
        crew.map(work, jobs, chunksize=max(1, len(jobs) // (8 * workers)))


def check_target(domain: str) -> None:
    """Raises ConfigError for a domain that is no task."""
    if domain not in TARGETS:
        raise ConfigError(f"task.domain={domain} is not a task of patterns; choose one of {', '.join(TARGETS)}")


def draw_task(
    folder: Path, domain: str, train_per_class: int, test_per_class: int, side: int, seed: int, workers: int
) -> dict[str, int]:
    """Draws a task into `folder`: train/<class>/<n>.jpg and test/<class>/<n>.jpg, none of them an image of the pool.

    Returns the images of each split. Raises ConfigError for a domain that is no task.
    """
    check_target(domain)
    jobs = []
    for split, space, each in (("train", TRAIN, train_per_class), ("test", TEST, test_per_class)):
        for label in range(classes(domain)):
            home = folder / split / f"{domain}-{label:02d}"
            home.mkdir(parents=True, exist_ok=True)
            jobs += [(home / f"{n:05d}.jpg", domain, label, side, seed, space * SPACE + n) for n in range(each)]
    in_processes(_write_image, jobs, workers)
    return {"train": classes(domain) * train_per_class, "test": classes(domain) * test_per_class}
