"""What looks like a split is never read as a class in silence, and what looks like one class is never read as two."""

import re
import unicodedata
from pathlib import Path

import pytest
from test_tasks import make_classes, refused, write

from sept.data.names import check_classes, likeness, tidy
from sept.data.read import read_task
from sept.data.tasks.imagefolder import read_imagefolder
from sept.data.tasks.task import resembles, role
from sept.errors import DataError

NFC, NFD = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
CSV = {"test_fraction": 0.5, "seed": 0}


def make_splits(root: Path, *names: str, classes: tuple[str, ...] = ("a", "b")) -> Path:
    for name in names:
        make_classes(root / name, dict.fromkeys(classes, 2))
    return root


def origin(examples) -> set[str]:
    return {example.id.split("/")[0] for example in examples}


# Splits


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *(("train", "valid"), ("train", "validation"), ("Train", "Test"), ("training", "validation"), ("TRAIN", "VAL")),
        *(("Training", "testing"), ("train", "Valid"), ("ｔｒａｉｎ", "test")),
    ],
)
def test_known_names_of_splits_are_read_as_such_in_any_case(train, test, tmp_path):
    task = read_imagefolder(make_splits(tmp_path, train, test), 0.5, 0)
    assert task.classes == ["a", "b"]
    assert (origin(task.train), origin(task.test)) == ({train}, {test})


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_validation_images_are_left_aside_where_there_are_test_images_and_it_is_told(validation, tmp_path):
    task = read_imagefolder(make_splits(tmp_path, "train", "Test", validation), 0.5, 0)
    assert origin(task.test) == {"Test"}
    assert task.notes == (f"{tmp_path / validation}: not used, for there is Test",)


@pytest.mark.parametrize(
    "names",
    [
        *(("train",), ("train", "trainn"), ("trainn", "test"), ("train", "tets"), ("train_images", "test_images")),
        *(("train2017", "val2017"), ("TrainSet", "TestSet"), ("split1", "split2", "split3"), ("fold_0", "fold_1")),
        *(
            ("train", "dev"),
            ("valid", "test"),
            ("trainval", "test"),
            ("my-train-data", "my-test-data"),
            ("train", "eval"),
        ),
        *(
            ("train (1)", "test (1)"),
            ("vaild", "train"),
            ("train", "test_"),
            ("labeled", "unlabeled"),
            ("train", "holdout"),
        ),
    ],
)
def test_other_names_of_splits_are_refused_whatever_they_hold(names, tmp_path):
    refused(make_splits(tmp_path / "classes", *names), "has only", "train and test (or val)", repr(names[0]))
    refused(make_classes(tmp_path / "images", dict.fromkeys(names, 2)), "has only", "train and test (or val)")


@pytest.mark.parametrize("names", [("train", "part_b"), ("train", "bus"), ("tests", "cars", "more"), ("val", "x", "y")])
def test_a_split_beside_other_folders_is_refused(names, tmp_path):
    refused(make_splits(tmp_path, *names), "holds folders ('a', 'b') as a split does", "train and test (or val)")


def test_two_of_a_kind_and_strange_images_beside_splits_are_refused(tmp_path):
    refused(make_splits(tmp_path / "two", "train", "Train", "test"), "'Train', 'train' are all train")
    refused(make_splits(tmp_path / "vals", "train", "val", "valid"), "'val', 'valid' are all val")
    refused(make_splits(tmp_path / "more", "train", "test", "unlabelled"), "'unlabelled' with images lie beside")
    write(make_splits(tmp_path / "fine", "train", "test") / "notes" / "a.xml")
    write(tmp_path / "fine" / ".cache" / "a.jpg")
    assert read_imagefolder(tmp_path / "fine", 0.5, 0).classes == ["a", "b"]


def test_folders_of_folders_do_not_tell_which_are_the_classes(tmp_path):
    make_splits(tmp_path / "above" / "data", "train", "test")
    refused(tmp_path / "above", "'data' does ('test', 'train')", "which are the classes")
    refused(make_splits(tmp_path / "groups", "plants", "insects"), "'insects' does ('a', 'b')")
    refused(make_splits(tmp_path / "twice" / "train", "train") and tmp_path / "twice", "has only ['train']")
    tiny = make_splits(tmp_path / "tiny", "n1", "n2", classes=("images",))  # as in Tiny ImageNet
    assert read_imagefolder(tiny, 0.5, 0).classes == ["n1", "n2"]
    write(make_splits(tmp_path / "clear", "x", "y") / "x" / "0.jpg")
    assert read_imagefolder(tmp_path / "clear", 0.5, 0).classes == ["x", "y"]


@pytest.mark.parametrize(
    "names", [("train", "bus"), ("training_shoes", "boots"), ("valley", "terrain"), ("test_tube", "flask"), ("1", "2")]
)
def test_names_that_only_hold_such_a_word_are_classes_where_images_lie_in_them(names, tmp_path):
    assert read_imagefolder(make_classes(tmp_path, dict.fromkeys(names, 2)), 0.5, 0).classes == sorted(names)


@pytest.mark.parametrize(
    "name", ["tram", "tent", "text", "brain", "vest", "rain", "food", "c0", "猫", "set1", "trunk", ""]
)
def test_words_near_a_split_are_none(name):
    assert role(name) is None
    assert not resembles(name)


def test_images_beside_class_folders_are_told(tmp_path):
    write(make_classes(tmp_path, {"a": 2, "b": 2}) / "0.PNG")
    write(tmp_path / "._1.png")
    [note] = read_imagefolder(tmp_path, 0.5, 0).notes
    assert note == f"{tmp_path}: images beside its class folders are not used: 1"


def test_a_class_folder_that_is_a_link_to_nothing_is_not_left_out(tmp_path):
    (make_classes(tmp_path, {"a": 2, "b": 2}) / "c").symlink_to(tmp_path / "gone")
    refused(tmp_path, f"{tmp_path / 'c'} is a link to nothing")


# Names of classes


def test_a_class_may_be_in_another_unicode_form_in_test(tmp_path):
    make_classes(tmp_path / "train", {NFD: 2, "b": 1, "Z ": 1})
    make_classes(tmp_path / "test", {NFC: 1, "b": 1, "Z": 3})
    task = read_imagefolder(tmp_path, 0.5, 0)
    assert task.classes == [NFD, "Z ", "b"]
    assert [example.label for example in task.test] == [0, 1, 1, 1, 2]
    assert all(example.path.is_file() for example in task.train + task.test)


@pytest.mark.parametrize("pair", [(NFC, NFD), ("c0", "c0 "), ("Cat", "cat"), ("red fox", "red  fox")])
def test_class_folders_that_look_the_same_are_refused(pair, tmp_path):
    root = make_classes(tmp_path, dict.fromkeys((*pair, "other"), 2))
    show = ascii if tidy(pair[0]) == tidy(pair[1]) else repr
    refused(root, *map(show, pair), "by case, blanks or Unicode form alone")


def test_a_class_of_train_in_another_case_in_test_is_named(tmp_path):
    make_classes(tmp_path / "train", {"Cat": 1, "dog": 1})
    make_classes(tmp_path / "test", {"cat": 1, "dog": 1})
    refused(tmp_path, "'Cat', which test calls 'cat'")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NFC, NFD),
        ("c0", "c0 "),
        ("c0", "\tC0"),
        ("ﬁsh", "fish"),
        ("Straße", "STRASSE"),
        ("a\u200bb", "ab"),
        ("c0\ufe0f", "c0"),
        ("c\u034f0", "c0"),
        ("c0\u3164", "c0"),
        ("c0\U000e0101", "c0"),
        ("Ａ", "a"),
    ],
)
def test_names_that_a_person_takes_for_one_are_alike(one, other):
    assert likeness(one) == likeness(other)
    with pytest.raises(DataError, match=r"two classes|form alone|cannot name"):
        check_classes("list", [one, "x", other])


def listed(root: Path, rows: list[tuple[str, str]], header: str = "path,label", end: str = "") -> Path:
    path = root / "list.csv"
    path.write_text("\n".join([header, *(f"{name}{end},{label}" for name, label in rows)]), encoding="utf-8")
    return path


def test_labels_in_a_csv_have_one_form_and_no_blanks_at_their_ends(tmp_path):
    rows = []
    for number, label in enumerate(("c0", "c0 ", "\u00a0c0", NFC, NFD, f" {NFC}")):
        write(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", label))
    task = read_task("csv", listed(tmp_path, rows, " Path , LABEL ", " "), **CSV)
    assert task.classes == [NFC, "c0"]
    assert len(task.train + task.test) == 6


@pytest.mark.parametrize("pair", [("Cat", "cat"), ("red fox", "red  fox"), ("a\u200bb", "ab")])
def test_labels_in_a_csv_that_look_the_same_are_refused_with_both_spellings(pair, tmp_path):
    path = listed(tmp_path, [("0.png", pair[0]), ("1.png", pair[1])])
    with pytest.raises(DataError, match=re.escape("{!r} and {!r} differ by case".format(*sorted(pair)))) as told:
        read_task("csv", path, **CSV)
    assert str(path) in str(told.value)


@pytest.mark.parametrize(("on_disk", "in_list"), [(NFC, NFD), (NFD, NFC)])
def test_a_listed_image_is_found_in_another_unicode_form(on_disk, in_list, tmp_path):
    rows = []
    for number, label in enumerate("aabb"):
        write(tmp_path / on_disk / "more" / f"{on_disk}{number}.png")
        rows.append((f"{in_list}/more/{in_list}{number}.png", label))
    task = read_task("csv", listed(tmp_path, rows), **CSV)
    assert all(example.path.is_file() for example in task.train + task.test)
    assert {example.id for example in task.train + task.test} == {name for name, _ in rows}
    again = (f"{on_disk}/more/{on_disk}0.png", "a")
    with pytest.raises(DataError, match="are one file; list every image once"):
        read_task("csv", listed(tmp_path, [*rows, again]), **CSV)
    with pytest.raises(DataError, match=r"absent, with 1 of 5 images"):
        read_task("csv", listed(tmp_path, [*rows, (f"{in_list}/more/{in_list}9.png", "a")]), **CSV)


@pytest.mark.parametrize("header", ["path;label", "path\tlabel", "sep=,", "file,class"])
def test_a_csv_of_another_make_is_refused_by_its_header(header, tmp_path):
    with pytest.raises(DataError, match=r"line 1: the columns are .* cells between commas"):
        read_task("csv", listed(tmp_path, [], header), **CSV)
