"""Class folders become a task that is the same on every machine; folders that make none are refused in one line."""

from pathlib import Path

import pytest

from sept.data.tasks.imagefolder import read_imagefolder
from sept.data.tasks.task import Example, Task, digest, random_key
from sept.errors import ConfigError, DataError


def write(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def make_classes(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for n in range(count):
            write(root / name / f"{n:03d}.jpg", f"{name} {n}".encode())
    return root


@pytest.mark.parametrize("test", ["test", "val"])
def test_given_splits_are_kept(test, tmp_path):
    make_classes(tmp_path / "train", {"b": 2, "a": 1, "C": 1})
    make_classes(tmp_path / test, {"a": 1, "b": 1, "C": 2})
    task = read_imagefolder(tmp_path, test_fraction=0.5, seed=0)
    assert task.classes == ["C", "a", "b"]
    assert task.train == [
        Example("train/C/000.jpg", tmp_path / "train/C/000.jpg", 0),
        Example("train/a/000.jpg", tmp_path / "train/a/000.jpg", 1),
        Example("train/b/000.jpg", tmp_path / "train/b/000.jpg", 2),
        Example("train/b/001.jpg", tmp_path / "train/b/001.jpg", 2),
    ]
    assert [example.id for example in task.test] == [
        f"{test}/{name}" for name in ("C/000.jpg", "C/001.jpg", "a/000.jpg", "b/000.jpg")
    ]
    assert task == read_imagefolder(tmp_path, test_fraction=0.1, seed=7)


def test_test_goes_before_val(tmp_path):
    for split in ("train", "val", "test"):
        make_classes(tmp_path / split, {"a": 1})
    assert read_imagefolder(tmp_path, 0.5, 0).test[0].id == "test/a/000.jpg"


def test_images_may_lie_deeper_and_other_files_do_not_count(tmp_path):
    make_classes(tmp_path, {"a": 2, "b": 2})
    write(tmp_path / "a" / "more" / "deep.PNG")
    for stray in ("readme.jpg", "a/notes.txt", ".git/x/y.jpg"):
        write(tmp_path / stray)
    task = read_imagefolder(tmp_path, 0.5, 0)
    assert task.classes == ["a", "b"]
    assert sorted(example.id for example in task.train + task.test) == [
        *("a/000.jpg", "a/001.jpg", "a/more/deep.PNG", "b/000.jpg", "b/001.jpg")
    ]
    assert all(example.path.is_file() for example in task.train + task.test)


@pytest.mark.parametrize(("count", "fraction", "tested"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.2, 2), (10, 0.99, 9)])
def test_a_split_takes_its_share_of_each_class_and_leaves_one(count, fraction, tested, tmp_path):
    task = read_imagefolder(make_classes(tmp_path, {"a": count, "b": count}), fraction, seed=3)
    for label in (0, 1):
        assert sum(example.label == label for example in task.test) == tested
        assert sum(example.label == label for example in task.train) == count - tested
    assert not {example.id for example in task.train} & {example.id for example in task.test}


def test_a_split_takes_the_smallest_lots_of_its_seed(tmp_path):
    make_classes(tmp_path, {"a": 30, "b": 30})
    ids = [f"a/{n:03d}.jpg" for n in range(30)]
    splits = []
    for seed in (0, 1):
        task = read_imagefolder(tmp_path, 0.2, seed)
        chosen = [example.id for example in task.test if example.label == 0]
        assert chosen == sorted(sorted(ids, key=lambda name: random_key(seed, "a", name))[:6])
        splits.append(chosen)
    assert splits[0] != splits[1]


def test_a_class_more_leaves_the_split_of_the_others(tmp_path):
    make_classes(tmp_path, {"b": 20})
    make_classes(tmp_path, {"c": 20})
    before = [example.id for example in read_imagefolder(tmp_path, 0.3, 0).test]
    make_classes(tmp_path, {"a": 20})
    after = [example.id for example in read_imagefolder(tmp_path, 0.3, 0).test]
    assert after[6:] == before


# printf '0|a|a/1.jpg' | b2sum -l 128
GOLDEN_LOTS = ("2d9018c79689b8a4a62bce9fc35d7e8c", "6696aa95dd9c4910a23918ca2eacb73b")


def test_lots_are_golden():
    """Other lots would change every few-shot split there is."""
    assert random_key(0, "a", "a/1.jpg").hex() == GOLDEN_LOTS[0]
    assert random_key(1, "é", "train/é/日本.jpg").hex() == GOLDEN_LOTS[1]


def refused(root: Path, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        read_imagefolder(root, 0.5, 0)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in (str(root), *parts)), message


def test_what_is_no_task_is_refused_in_one_line(tmp_path):
    refused(tmp_path / "missing", "no such folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no class folders")
    refused(make_classes(tmp_path / "one", {"a": 2, "b": 1}), "'b'", "has one image")
    refused(make_classes(tmp_path / "none", {"a": 2, "b": 0}), "none/b", ".jpg")
    make_classes(tmp_path / "half" / "train", {"a": 2})
    refused(tmp_path / "half", "['train']", "test (or val)")


def test_splits_of_different_classes_are_refused(tmp_path):
    for name, train, test in (("x", ["a", "b"], ["a"]), ("y", ["a"], ["a", "b"])):
        make_classes(tmp_path / name / "train", dict.fromkeys(train, 1))
        make_classes(tmp_path / name / "test", dict.fromkeys(test, 1))
    refused(tmp_path / "x", "classes of train are not in test", "'b'")
    refused(tmp_path / "y", "classes of test are not in train", "'b'")


def test_train_beside_other_classes_is_a_vehicle(tmp_path):
    make_classes(tmp_path, {"train": 2, "bus": 2})
    assert read_imagefolder(tmp_path, 0.5, 0).classes == ["bus", "train"]


@pytest.mark.parametrize("name", [b"caf\xe9", b"new\nline"])
def test_a_folder_that_cannot_name_a_class_is_refused(name, tmp_path):
    make_classes(tmp_path, {"a": 2})
    try:
        Path(str(tmp_path), name.decode("utf-8", "surrogateescape")).mkdir()
    except OSError:
        pytest.skip("this file system refuses such names itself")
    refused(tmp_path, "cannot name a class; rename it")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_that_leaves_no_split_is_refused(fraction, tmp_path):
    with pytest.raises(ConfigError, match=r"task\.test_fraction"):
        read_imagefolder(make_classes(tmp_path, {"a": 2}), fraction, 0)


def test_digest_stays_when_the_task_moves_and_changes_with_its_content(tmp_path):
    make_classes(tmp_path / "old", {"a": 3, "b": 3})
    before = digest(read_imagefolder(tmp_path / "old", 0.4, 0))
    (tmp_path / "old").rename(tmp_path / "new")
    task = read_imagefolder(tmp_path / "new", 0.4, 0)
    assert digest(task) == before
    others = [
        Task(["a", "c"], task.train, task.test),
        Task(task.classes, task.train[:-1], task.test),
        Task(task.classes, task.train[:-1], [*task.test, task.train[-1]]),
        Task(task.classes, [task.train[0]._replace(label=1), *task.train[1:]], task.test),
    ]
    digests = {digest(other) for other in others}
    write(task.test[0].path, task.test[0].path.read_bytes()[::-1])  # as many bytes, others
    digests.add(digest(task))
    assert len(digests | {before}) == 6
