"""Which species of iNaturalist 2017 make a task: drawn by seed, or read from a list (SEPT published none)."""

import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from sept.data.names import tidy
from sept.data.tasks.annotations import read_lines
from sept.data.tasks.task import Task, random_key
from sept.errors import ConfigError, DataError
from sept.store.disk import storage_errors, sync, temporary_name

CLASSES = 1000
"""SEPT, Table 1."""
MIN_TRAIN = 10
"""Training images a drawn species has at least: 10-shot needs them."""
SUBSETS = {"plantae": "Plantae", "insecta": "Insecta", "all13": None}
"""Super-category of a subset; None: all of them, evenly."""
EXPECTED = "expected: a text file with a species a line, like Plantae/Quercus robur"


def choose(train_images: Mapping[str, int], subset: str, seed: int, classes: int) -> set[str]:
    """Draws `classes` species among those of the subset with at least `MIN_TRAIN` training images.

    train_images: their number by "Super/species". Super-categories give one species each in turn, in the order of
    lots, until enough are drawn: so shares are even, but for small super-categories that give all they have. Each
    gives the species of its smallest lots, whatever the others hold.
    """
    if subset not in SUBSETS:
        raise ConfigError(f"task.subset={subset}: choose one of {', '.join(SUBSETS)}")
    above = SUBSETS[subset]
    members = defaultdict(list)
    for name, images in train_images.items():
        group = name.partition("/")[0]
        if images >= MIN_TRAIN and above in (None, group):
            members[group].append(name)
    turns = []
    for group, names in members.items():
        names.sort(key=lambda name: random_key(seed, "inat2017 species", name))
        turns += [(turn, random_key(seed, "inat2017 group", group), name) for turn, name in enumerate(names)]
    if len(turns) < classes:
        raise DataError(
            f"inat2017 {subset}: {len(turns):,} species have at least {MIN_TRAIN} training images, but {classes:,} are "
            "needed; is train2017.json the official one?"
        )
    return {name for _, _, name in sorted(turns)[:classes]}


def read_class_list(path: Path, known: Collection[str]) -> set[str]:
    """The species in a list that `write_class_list` wrote, or that a person did. Raises DataError for unknown ones."""
    chosen: set[str] = set()
    spelt = {tidy(name): name for name in known}
    for number, line in enumerate(read_lines(path, EXPECTED), start=1):
        name = spelt.get(tidy(line))
        if name is None:
            raise DataError(f"{path}, line {number}: {line!a} is no species of train2017.json; {EXPECTED}")
        if name in chosen:
            raise DataError(f"{path}, line {number}: {name!r} is listed already; list every species once")
        chosen.add(name)
    return chosen


def write_class_list(task: Task, path: Path) -> None:
    """Writes the classes of a task, a line each, so that `read_class_list` gives the same ones anywhere."""
    temporary = path.with_name(temporary_name(path.name))
    with storage_errors(path):
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in task.classes)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
