"""Class folders as a task, with a test split of their own or split here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sept.data.names import check_classes, likeness, tidy
from sept.data.tasks.task import TEST, TRAIN, VALIDATION, Example, Task, random_key, resembles, role, told
from sept.data.tasks.tree import Found, Tree, open_tree
from sept.errors import ConfigError, DataError

NEEDED = "it needs train and test (or val), or class folders"
MEND = "rename or merge the folders"


def read_imagefolder(path: Path, test_fraction: float, seed: int) -> Task:
    """A task of class folders: root/train/<class> with root/test/<class>, or root/<class> alone. The root is a folder,
    or a zip or tar that holds the folders; see `open_tree`.

    Splits are known by name, in any case: train or training; test or testing; val, valid or validation, which is the
    test where there is no other, else left aside. A folder of such a name whose images lie in it, beside
    classes of other names, is one too (train, the vehicle). Whatever else looks like a split is never taken for a class
    but refused: one half alone, two of a kind, folders of images beside splits, names that only resemble those, and
    folders that all hold nothing but folders, where nobody can tell which are the classes.

    Without splits each class is split here: the images of the smallest lots are the test images, `test_fraction` of the
    class but at least one, and at least one stays for training. With them neither fraction nor seed is used. Images may
    lie at any depth below their class; those beside class folders are not used, as the task's notes tell. A class has
    the name of its folder, in train; in test it may be in another Unicode form. Raises DataError for folders that make
    no task.
    """
    root = open_tree(path)
    names = root.inside().folders
    splits = {name: known for name in names if (known := role(name))}
    if TRAIN in splits.values() and {TEST, VALIDATION} & {*splits.values()}:
        return _read_splits(root, splits, [name for name in names if name not in splits])
    _refuse_splits(root, names)
    classes = _read_classes(root).items()
    found = {name: _examples(name, images, label) for label, (name, images) in enumerate(classes)}
    return replace(draw_split(found, path, test_fraction, seed), notes=_beside(root))


def _beside(*folders: Tree) -> tuple[str, ...]:
    """A note for each of the folders that has images beside its class folders."""
    counts = {str(folder): len(folder.inside().images) for folder in folders}
    return tuple(f"{folder}: images beside its class folders are not used: {n:,}" for folder, n in counts.items() if n)


def _refuse_splits(root: Tree, names: list[str]) -> None:
    """Raises DataError where folders look like splits, but are no train with a test (or val)."""
    suspects = [name for name in names if role(name) or resembles(name)]
    if names and len(suspects) == len(names):
        raise DataError(f"{root}: has only [{told(names)}]; {NEEDED}")
    for name in suspects:
        folders, images = root.below(name).inside()
        if folders and not images:
            others = told([other for other in names if other != name])
            held = f"{name!r} holds folders ({told(folders)}) as a split does"
            raise DataError(f"{root}: {held}, beside {others}; {NEEDED}")


def _read_classes(root: Tree) -> dict[str, Sequence[Found]]:
    """Images of each class folder, keys relative to that folder; classes sorted by bytes."""
    classes = root.inside().folders
    if not classes:
        raise DataError(f"{root}: has no class folders; a task is root/<class>/<image>")
    check_classes(root, classes, MEND)
    found = {name: root.below(name).images() for name in classes}
    if not any("/" not in image.key for images in found.values() for image in images):
        _refuse_groups(root, found)
    return found


def _refuse_groups(root: Tree, found: Mapping[str, Iterable[Found]]) -> None:
    """Of folders without an image in themselves: raises DataError where one holds several folders of images."""
    for name, images in found.items():
        inside = sorted({image.key.partition("/")[0] for image in images})
        if len(inside) > 1:
            held = f"its folders hold folders and no image, as {name!r} does ({told(inside)})"
            raise DataError(f"{root}: {held}, so which are the classes? {NEEDED}, with images in them")


def _examples(prefix: str, images: Iterable[Found], label: int) -> list[Example]:
    return [Example(f"{prefix}/{key}", path, label) for key, path in images]


def _read_splits(root: Tree, splits: Mapping[str, str], others: list[str]) -> Task:
    """splits: the folders that are one, and which; others: the names of those that are none."""
    for known in (TRAIN, TEST, VALIDATION):
        if len(several := [name for name in splits if splits[name] == known]) > 1:
            raise DataError(f"{root}: {told(several)} are all {known}; keep one of them there")
    if strangers := [name for name in others if root.below(name).holds_image()]:
        raise DataError(
            f"{root}: {told(strangers)} with images lie beside the splits {told(splits)}, and are neither train nor "
            "test; move them elsewhere"
        )
    folder_of = {known: name for name, known in splits.items()}
    test = folder_of.get(TEST, folder_of.get(VALIDATION, ""))
    used = (folder_of[TRAIN], test)
    notes = tuple(f"{root.below(name)}: not used, for there is {test}" for name in splits if name not in used)
    found = {name: _read_classes(root.below(name)) for name in used}
    _refuse_differing(root, *used, found)
    classes = [*found[used[0]]]
    labels = {tidy(name): label for label, name in enumerate(classes)}
    train, tested = (
        sorted(
            (
                example
                for name, images in found[split].items()
                for example in _examples(f"{split}/{name}", images, labels[tidy(name)])
            ),
            key=lambda example: example.label,
        )
        for split in used
    )
    return Task(classes, train, tested, notes=notes + _beside(root, *(root.below(name) for name in used)))


def _refuse_differing(root: Tree, train: str, test: str, found: Mapping[str, Iterable[str]]) -> None:
    for here, there in ((train, test), (test, train)):
        known = {tidy(name) for name in found[there]}
        if alone := [name for name in found[here] if tidy(name) not in known]:
            alike = [repr(name) for name in found[there] if likeness(name) == likeness(alone[0])]
            raise DataError(
                f"{root}: {len(alone)} classes of {here} are not in {there}, the first is {alone[0]!r}"
                + (f", which {there} calls {alike[0]}" if alike else "")
            )


def draw_split(found: Mapping[str, list[Example]], where: Path, test_fraction: float, seed: int) -> Task:
    """Splits the examples of each class: those of the smallest lots are the test images, the others train.

    `found` has the classes in order; `where` is named in errors. Raises ConfigError for a share that is none, DataError
    for a class of one image.
    """
    if not 0 < test_fraction < 1:
        raise ConfigError(f"task.test_fraction={test_fraction}: a share of each class between 0 and 1 is needed")
    task = Task(list(found), [], [])
    for name, examples in found.items():
        if len(examples) < 2:
            raise DataError(f"{where}: class {name!r} has one image; a split needs one to train on and one to test on")
        count = min(max(1, round(test_fraction * len(examples))), len(examples) - 1)
        drawn = set(sorted((example.id for example in examples), key=lambda id_: random_key(seed, name, id_))[:count])
        for example in examples:
            (task.test if example.id in drawn else task.train).append(example)
    return task
