"""Tasks in their official layouts: read as they were put there, the same on every machine, refused in one line."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import official
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sept.data.annotated import draw_shots
from sept.data.read import READERS, read_task
from sept.data.tasks.inat_classes import MIN_TRAIN, choose, write_class_list
from sept.data.tasks.task import Example, Task, digest
from sept.errors import ConfigError, DataError

INAT = {"subset": "all13", "seed": 0, "classes": 6}
CSV = {"test_fraction": 0.3, "seed": 0}
KINDS = {
    "flowers102": (official.make_flowers102, {}),
    "stanford_cars": (official.make_stanford_cars, {}),
    "food101": (official.make_food101, {}),
    "places365": (official.make_places365, {}),
    "inat2017": (official.make_inat2017, INAT),
    "csv": (official.make_csv, CSV),
}
CLASSES = {
    "flowers102": ["001", "002", "003"],
    "stanford_cars": ["Ram C/V Cargo Van 2000", "Ram C/V Cargo Van 2001", "Ram C/V Cargo Van 2002"],
    "food101": ["apple_pie", "baby_back_ribs", "crème_brûlée"],
    "places365": ["airfield", "apartment_building/outdoor", "bakery/shop"],
    "inat2017": [
        *("Aves/Avesus n° 1", "Aves/Avesus n° 0", "Insecta/Inseus n° 1"),
        *("Insecta/Inseus n° 0", "Plantae/Planus n° 1", "Plantae/Planus n° 0"),
    ],
    "csv": ["class 0", "class 1", "class 2"],
}
PER_CLASS = {  # training and test images that the makers put there
    "flowers102": (2, 3),
    "stanford_cars": (2, 2),
    "food101": (4, 2),
    "places365": (4, 2),
    "inat2017": (10, 2),
    "csv": (4, 2),
}
GOLDEN_SHOTS = {
    "flowers102": ["jpg/image_00017.jpg", "jpg/image_00016.jpg", "jpg/image_00013.jpg"],
    "stanford_cars": ["cars_train/00006.jpg", "cars_train/00001.jpg", "cars_train/00002.jpg"],
    "food101": ["images/apple_pie/997.jpg", "images/baby_back_ribs/999.jpg", "images/crème_brûlée/997.jpg"],
    "places365": [
        "data_256_standard/a/airfield/00000001.jpg",
        "data_256_standard/a/apartment_building/outdoor/00000001.jpg",
        "data_256_standard/b/bakery/shop/00000003.jpg",
    ],
    "inat2017": [
        "train_val_images/Aves/Avesus n° 1/train0007.jpg",
        "train_val_images/Aves/Avesus n° 0/train0000.jpg",
        "train_val_images/Insecta/Inseus n° 1/train0007.jpg",
        "train_val_images/Insecta/Inseus n° 0/train0001.jpg",
        "train_val_images/Plantae/Planus n° 1/train0001.jpg",
        "train_val_images/Plantae/Planus n° 0/train0003.jpg",
    ],
    "csv": ["my images/ü 0, 1.jpg", "my images/ü 1, 3.jpg", "my images/ü 2, 2.jpg"],
}  # one image a class, seed 0

every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind: str, root: Path) -> Path:
    return KINDS[kind][0](root)


def read(kind: str, root: Path) -> Task:
    return read_task(kind, root, **KINDS[kind][1])


def folder(kind: str, root: Path) -> Path:
    return root.parent if kind == "csv" else root


def ids(examples: list[Example]) -> list[str]:
    return [example.id for example in examples]


@every_kind
def test_counts_labels_and_paths_are_those_put_there(kind, tmp_path):
    root = make(kind, tmp_path)
    task = read(kind, root)
    assert task.classes == CLASSES[kind]
    assert task.listed == (kind != "csv")
    for examples, count in zip((task.train, task.test), PER_CLASS[kind], strict=True):
        assert Counter(example.label for example in examples) == dict.fromkeys(range(len(task.classes)), count)
        assert examples == sorted(examples, key=lambda example: (example.label, example.id.encode()))
        for example in examples:
            assert example.path == folder(kind, root) / example.id
            assert example.path.read_bytes() in {official.jpeg(example.label, n) for n in range(official.VARIANTS)}
    assert len(set(ids(task.train + task.test))) == len(task.train + task.test)


def test_splits_are_the_official_ones(tmp_path):
    flowers = read("flowers102", make("flowers102", tmp_path))  # 9 of tstid come first, then 3 of valid, 6 of trnid
    assert sorted(ids(flowers.train)) == [f"jpg/image_{n:05d}.jpg" for n in range(13, 19)]
    assert sorted(ids(flowers.test)) == [f"jpg/image_{n:05d}.jpg" for n in range(1, 10)]
    cars = read("stanford_cars", make("stanford_cars", tmp_path))
    assert ids(cars.train)[:2] == ["cars_train/00003.jpg", "cars_train/00006.jpg"]
    assert {name.split("/")[0] for name in ids(cars.test)} == {"cars_test"}
    food = read("food101", make("food101", tmp_path))
    assert ids(food.test)[:2] == ["images/apple_pie/995.jpg", "images/apple_pie/996.jpg"]
    inat = read("inat2017", make("inat2017", tmp_path))
    assert all("/val0" in name for name in ids(inat.test))
    assert all("/train0" in name for name in ids(inat.train))


@pytest.mark.parametrize("kind", ["flowers102", "stanford_cars", "food101"])
def test_the_folder_that_holds_the_unpacked_one_will_do_too(kind, tmp_path):
    root = make(kind, tmp_path)
    assert read(kind, tmp_path) == read(kind, root)


def test_places_are_read_at_either_size(tmp_path):
    official.make_places365(tmp_path, size="large")
    large = read_task("places365", tmp_path)
    assert ids(large.train)[0] == "data_large_standard/a/airfield/00000001.jpg"
    assert ids(large.test)[0] == "val_large/Places365_val_00000003.jpg"
    official.make_places365(tmp_path, size="256")
    assert ids(read_task("places365", tmp_path).train)[0] == "data_256_standard/a/airfield/00000001.jpg"


def test_food_lists_may_be_text(tmp_path):
    root = make("food101", tmp_path)
    task = read("food101", root)
    for split in ("train", "test"):
        (root / "meta" / f"{split}.json").unlink()
    assert read("food101", root) == task


@every_kind
def test_few_shot_draws_are_golden(kind, tmp_path):
    """Other draws would change every few-shot result there is."""
    task = read(kind, make(kind, tmp_path))
    assert ids(draw_shots(task.train, 1, 0, task.classes)) == GOLDEN_SHOTS[kind]


def reverse_lines(path: Path, header: int = 0) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:header], *lines[header:][::-1]]), encoding="utf-8")


def reverse_lists(kind: str, root: Path) -> None:
    """Turns round whatever order the annotation files have, where order means nothing."""
    if kind == "flowers102":
        parts = {name: part[:, ::-1] for name, part in load(root / "setid.mat").items()}
        official.save_mat(root / "setid.mat", parts)
    elif kind == "stanford_cars":
        for path in (root / "devkit" / "cars_train_annos.mat", root / "cars_test_annos_withlabels.mat"):
            official.save_mat(path, {"annotations": load(path)["annotations"][:, ::-1]})
    elif kind == "csv":
        reverse_lines(root, header=1)
    elif kind == "places365":
        for name in ("train_standard", "val"):
            reverse_lines(root / f"places365_{name}.txt")
        reverse_lines(root / "categories_places365.txt")
    else:
        for path in root.rglob("*.json"):
            path.write_text(json.dumps(reversed_json(json.loads(path.read_text()))))


def reversed_json(value):
    if isinstance(value, dict):
        return {key: reversed_json(value[key]) for key in reversed(value)}
    return [reversed_json(item) for item in reversed(value)] if isinstance(value, list) else value


def load(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    return {name: value for name, value in loadmat(path).items() if not name.startswith("__")}


@every_kind
def test_the_order_of_the_lists_changes_nothing(kind, tmp_path):
    root = make(kind, tmp_path)
    before = read(kind, root)
    reverse_lists(kind, root)
    assert read(kind, root) == before


@every_kind
def test_images_may_be_links(kind, tmp_path):
    root = make(kind, tmp_path / "here")
    task = read(kind, root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number, example in enumerate(task.train):
        example.path.rename(elsewhere / str(number))
        example.path.symlink_to(elsewhere / str(number))
    assert read(kind, root) == task


# Digests


@every_kind
def test_official_lists_identify_a_task_and_a_csv_its_images_too(kind, tmp_path):
    task = read(kind, make(kind, tmp_path / "old"))
    before = digest(task)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = read(kind, make(kind, tmp_path / "other"))
    assert digest(moved) == before
    moved.train[0].path.write_bytes(b"another image")
    assert (digest(moved) == before) == (kind != "csv")


def test_a_listed_task_changes_with_its_names_labels_classes_and_splits(tmp_path):
    task = read("food101", make("food101", tmp_path))
    others = [
        Task(["a", *task.classes[1:]], task.train, task.test, listed=True),
        Task(task.classes, task.train[1:], task.test, listed=True),
        Task(task.classes, task.train[1:], [task.train[0], *task.test], listed=True),
        Task(task.classes, [task.train[0]._replace(label=1), *task.train[1:]], task.test, listed=True),
        Task(task.classes, [task.train[0]._replace(id="x"), *task.train[1:]], task.test, listed=True),
        Task(task.classes, task.train, task.test),
    ]
    assert len({digest(other) for other in [task, *others]}) == 7


def test_the_identity_of_class_folders_and_csv_files_is_golden(tmp_path):
    """Another one would compute every result on such a task again."""
    for name, data in (("a/1.jpg", b"one"), ("b/2.jpg", b"two" * 5000)):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(data)
    task = Task(
        ["a", "b"], [Example("a/1.jpg", tmp_path / "a/1.jpg", 0)], [Example("b/2.jpg", tmp_path / "b/2.jpg", 1)]
    )
    assert digest(task) == "1a5c1ab12b75ea5541e3530d0dc068405b673c59b9b4841a69789d2da9e804ec"


# CSV


def test_a_csv_without_splits_is_split_as_class_folders_are(tmp_path):
    path = tmp_path / "list.csv"
    lines = [f"{name}/{n}.jpg,{name}" for name in ("a", "b") for n in range(10)]
    for line in lines:
        official.put(tmp_path / line.split(",")[0], 0, 0)
    path.write_text("\n".join(["path,label", *lines[::-1]]))
    task = read_task("csv", path, **CSV)
    assert task == read_task("imagefolder", tmp_path, **CSV)
    assert [len(task.train), len(task.test)] == [14, 6]
    with pytest.raises(ConfigError, match=r"task\.test_fraction=2"):
        read_task("csv", path, test_fraction=2, seed=0)


def test_a_csv_may_have_a_byte_order_mark_other_line_ends_and_another_order(tmp_path):
    path = make("csv", tmp_path)
    task = read("csv", path)
    rows = [line.rsplit(",", 2) for line in path.read_text().splitlines()]
    lines = [f"{split}, {label}, {image}" for image, label, split in rows]
    path.write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n\r\n").encode())
    assert read("csv", path) == task


# iNaturalist


def test_a_class_list_gives_the_same_species_whatever_the_seed(tmp_path):
    root = make("inat2017", tmp_path)
    drawn = read_task("inat2017", root, subset="all13", seed=4, classes=4)
    write_class_list(drawn, tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_text(encoding="utf-8").splitlines() == drawn.classes
    assert read_task("inat2017", root, subset="plantae", seed=9, class_list=tmp_path / "list.txt") == drawn
    reverse_lines(tmp_path / "list.txt")
    assert read_task("inat2017", root, subset="all13", seed=0, class_list=tmp_path / "list.txt") == drawn


def test_only_images_of_the_chosen_species_need_to_be_there(tmp_path):
    root = make("inat2017", tmp_path)
    for above in ("Aves", "Insecta"):
        (root / "train_val_images" / above).rename(root / above)
    task = read_task("inat2017", root, subset="plantae", seed=0, classes=2)
    assert task.classes == ["Plantae/Planus n° 1", "Plantae/Planus n° 0"]
    assert [len(task.train), len(task.test)] == [20, 4]


def test_a_species_may_be_without_test_images_but_not_without_training_images(tmp_path):
    root = official.make_inat2017(tmp_path, species={"Aves": 2}, train=1, test=1)
    species = tmp_path / "list.txt"
    species.write_text("Aves/Avesus n° 0\nAves/Avesus n° 1\n", encoding="utf-8")
    for split, fits in (("val", True), ("train", False)):
        path = root / f"{split}2017.json"
        content = json.loads(path.read_text())
        content["images"] = content["images"][:1]
        content["annotations"] = content["annotations"][1:]  # they are in the other order
        path.write_text(json.dumps(content))
        if fits:
            task = read_task("inat2017", root, subset="all13", seed=0, class_list=species)
            assert [len(task.train), len(task.test)] == [2, 1]
        else:
            refused("inat2017", root, "no training image of class", class_list=species)


# Classes of each super-category with their training and validation images: the competition's published table.
OFFICIAL_SPECIES = dict(zip(official.SUPERS, (2101, 1021, 964, 289, 186, 121, 115, 93, 77, 56, 53, 9, 4), strict=True))


def test_thousand_species_are_spread_evenly_with_caps():
    counts = {f"{above}/{n}": MIN_TRAIN for above, number in OFFICIAL_SPECIES.items() for n in range(number)}
    drawn = Counter(name.split("/")[0] for name in choose(counts, "all13", 0, 1000))
    assert sorted(drawn.values()) == [4, 9, 53, 56, 77, 93, 101, 101, 101, 101, 101, 101, 102]
    assert {name.split("/")[0] for name in choose(counts, "insecta", 0, 1000)} == {"Insecta"}


groups = st.dictionaries(st.sampled_from(official.SUPERS), st.lists(st.integers(8, 12), max_size=8), min_size=1)


@given(groups=groups, seed=st.integers(0, 3), share=st.floats(0, 1))
def test_a_draw_is_even_up_to_what_exists_whatever_the_order(groups, seed, share):
    counts = {f"{above}/{n}": images for above, group in groups.items() for n, images in enumerate(group)}
    eligible = Counter(name.split("/")[0] for name, images in counts.items() if images >= MIN_TRAIN)
    wanted = round(share * eligible.total())
    chosen = choose(counts, "all13", seed, wanted)
    drawn = Counter(name.split("/")[0] for name in chosen)
    assert len(chosen) == wanted
    assert all(counts[name] >= MIN_TRAIN for name in chosen)
    unfilled = [drawn[above] for above in eligible if drawn[above] < eligible[above]]
    assert max(drawn.values(), default=0) - min(unfilled, default=max(drawn.values(), default=0)) <= 1
    assert choose(dict(reversed(counts.items())), "all13", seed, wanted) == chosen
    assert chosen <= choose(counts, "all13", seed, eligible.total())


def test_drawn_species_are_golden():
    counts = {f"{above}/{n}": 10 for above in official.SUPERS[:2] for n in range(20)}
    assert sorted(choose(counts, "all13", 0, 4)) == ["Insecta/16", "Insecta/4", "Plantae/12", "Plantae/5"]
    assert sorted(choose(counts, "plantae", 1, 3)) == ["Plantae/17", "Plantae/7", "Plantae/9"]


# Damage


def refused(kind: str, root: Path, *parts: str, **options) -> None:
    with pytest.raises(DataError) as caught:
        read_task(kind, root, **{**KINDS[kind][1], **options})
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


@every_kind
def test_absent_images_are_counted_and_the_first_is_named(kind, tmp_path):
    root = make(kind, tmp_path)
    task = read(kind, root)
    first, second = task.train[0].path, task.test[-1].path
    total = len(task.train) + len(task.test)
    second.unlink()
    refused(kind, root, str(second), "absent", f"1 of {total} images", "expected")
    first.unlink()
    first.symlink_to(tmp_path / "nowhere")
    refused(kind, root, f"2 of {total} images", "expected")
    second.mkdir()
    refused(kind, root, f"2 of {total} images")


@every_kind
def test_a_folder_that_is_not_there_is_named_with_the_layout(kind, tmp_path):
    refused(kind, tmp_path / "nowhere", str(tmp_path / "nowhere"), "expected")
    if kind != "csv":
        (tmp_path / "empty").mkdir()
        refused(kind, tmp_path / "empty", str(tmp_path / "empty"), "expected")


ANNOTATIONS = {
    "flowers102": ["imagelabels.mat", "setid.mat"],
    "stanford_cars": ["devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"],
    "food101": ["meta/train.json", "meta/test.json"],
    "places365": ["categories_places365.txt", "places365_train_standard.txt", "places365_val.txt"],
    "inat2017": ["train2017.json", "val2017.json"],
}
files = pytest.mark.parametrize(("kind", "file"), [(kind, file) for kind in ANNOTATIONS for file in ANNOTATIONS[kind]])


@files
def test_an_annotation_file_that_is_missing_cut_or_garbage_is_named(kind, file, tmp_path):
    path = make(kind, tmp_path) / file
    root, whole = tmp_path, path.read_bytes()
    for part in (0.0, 0.3, 0.7, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        refused(kind, root, path.name)
    for garbage in (b"\xff\xfe\x00garbage" * 40, b"[" * 100_000, b"[1, 2]", bytes(1000)):
        path.write_bytes(garbage)
        refused(kind, root, str(path))
    path.unlink()
    (path.with_suffix(".txt") if kind == "food101" else path).unlink(missing_ok=True)
    refused(kind, root, str(path), "expected")


def edit(path: Path, old: str, new: str, count: int = 1) -> Path:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf-8")
    return path


OUTSIDE = ["../secret.jpg", "/secret.jpg", "a/../../secret.jpg", "./a.jpg", "a//b.jpg", "a\\\\..\\\\b.jpg"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_outside_is_refused_even_when_a_file_is_there(name, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"x")
    words = "no plain relative path"
    root = make("food101", tmp_path / "food")
    edit(root / "meta" / "train.json", "apple_pie/999", f"apple_pie/{name}")
    refused("food101", root, "train.json", "entry 2", words)
    root = make("places365", tmp_path / "places")
    edit(root / "places365_val.txt", "Places365_val_00000002.jpg", f"/{name}")
    refused("places365", root, "places365_val.txt", "entry 2", words)
    root = make("inat2017", tmp_path / "inat")
    edit(root / "val2017.json", "train_val_images/", f"{name}/")
    refused("inat2017", root, "val2017.json", "entry 1", words)
    path = make("csv", tmp_path / "csv")
    edit(path, "my images/ü 0, 1.jpg", name)
    here = name.startswith("./")  # as `find` prints what lies below: in a list of one's own, a.jpg
    refused("csv", path, "list.csv", *(["absent"] if here else ["entry 2", words]))
    root = make("stanford_cars", tmp_path / "cars")
    rows = [("00001.jpg", 1), (name, 2), ("00002.jpg", 3)]
    official.save_mat(root / "devkit" / "cars_train_annos.mat", official.cars_annotations(rows))
    refused("stanford_cars", root, "cars_train_annos.mat", "entry 2", words)


def test_classes_of_an_official_list_that_look_the_same_are_refused(tmp_path):
    root = make("stanford_cars", tmp_path)
    names = load(root / "devkit" / "cars_meta.mat")["class_names"].reshape(-1)
    names = [str(name.item()) for name in names]
    names[1] = f"{names[0].upper()}  "
    official.save_mat(root / "devkit" / "cars_meta.mat", {"class_names": np.array(names, dtype=object)})
    refused("stanford_cars", root, repr(names[1]), "differ by case, blanks or Unicode form alone")


def test_images_listed_twice_are_refused(tmp_path):
    root = make("flowers102", tmp_path)
    parts = load(root / "setid.mat")
    official.save_mat(root / "setid.mat", {**parts, "tstid": parts["trnid"]})
    refused("flowers102", root, "setid.mat", "listed already")
    root = make("stanford_cars", tmp_path)
    rows = [("00001.jpg", 1), ("00002.jpg", 2), ("00003.jpg", 3), ("00001.jpg", 1)]
    official.save_mat(root / "devkit" / "cars_train_annos.mat", official.cars_annotations(rows))
    refused("stanford_cars", root, "cars_train_annos.mat, entry 4", "'cars_train/00001.jpg'", "entry 1")
    root = make("food101", tmp_path)
    edit(root / "meta" / "train.json", "apple_pie/999", "apple_pie/1000")
    refused("food101", root, "train.json, entry 2", "listed already")
    root = make("places365", tmp_path / "places")
    edit(root / "places365_train_standard.txt", "airfield/00000002", "airfield/00000001")
    refused("places365", root, "places365_train_standard.txt, entry 10", "listed already")
    root = make("inat2017", tmp_path / "inat")
    edit(root / "val2017.json", "val0000", "val0001")
    refused("inat2017", root, "val2017.json", "listed already")
    path = make("csv", tmp_path / "csv")
    edit(path, "ü 0, 5.jpg", "ü 0, 1.jpg")
    refused("csv", path, "list.csv", "entry 2", "listed already")


@pytest.mark.parametrize(
    ("file", "variable", "value", "words"),
    [
        ("imagelabels.mat", "labels", [0] * 18, "entry 1 of 'labels' is 0, not a whole number from 1"),
        ("imagelabels.mat", "labels", [1.5] * 18, "1.5, not a whole number"),
        ("imagelabels.mat", "labels", [float("nan")] * 18, "nan, not a whole number"),
        ("imagelabels.mat", "labels", "text", "'text', not a whole number"),
        ("imagelabels.mat", "labels", [], "'labels' is empty"),
        ("imagelabels.mat", "labels", [1] * 17, "18, not a whole number from 1 to 17"),
        ("imagelabels.mat", "other", [1] * 18, "lacks the variable 'labels'"),
        ("imagelabels.mat", "labels", [2, 3] * 9, "setid.mat: no training image of class '001'"),
        ("setid.mat", "trnid", [1], "lacks the variable 'tstid'"),
    ],
)
def test_damaged_flower_files_are_refused(file, variable, value, words, tmp_path):
    root = make("flowers102", tmp_path)
    official.save_mat(root / file, {variable: np.array([value])})
    refused("flowers102", root, str(root), words)


def test_damaged_car_files_are_refused(tmp_path):
    root = make("stanford_cars", tmp_path)
    test = root / "cars_test_annos_withlabels.mat"
    for number in (0, 4):
        official.save_mat(test, official.cars_annotations([("00001.jpg", number)]))
        refused("stanford_cars", root, str(test), f"'class' is {number}, not a whole number from 1 to 3")
    official.save_mat(test, official.cars_annotations([("00001.jpg", 1)]))
    refused("stanford_cars", root, str(test), "no test image of class 'Ram C/V Cargo Van 2001' (2 of 3 classes")
    official.save_mat(test, official.cars_annotations([("00001.jpg", None)]))  # the devkit's file, which has no labels
    refused("stanford_cars", root, str(test), "lack the field 'class'")
    official.save_mat(test, {"annotations": np.zeros((1, 3))})
    refused("stanford_cars", root, str(test), "lack the field 'fname'")
    names = np.empty((1, 2), object)
    names[0] = ["a car", "a car"]
    official.save_mat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    refused("stanford_cars", root, "cars_train_annos.mat", "not a whole number from 1 to 2")


def test_damaged_food_lists_are_refused(tmp_path):
    root = make("food101", tmp_path)
    train = root / "meta" / "train.json"
    whole = train.read_text()
    edit(train, '"apple_pie":', '"apple":')
    refused("food101", root, str(train), "no training image of class 'apple_pie'")
    for value in ('{"apple_pie": 3}', '{"apple_pie": [3]}'):
        train.write_text(value)
        refused("food101", root, str(train), "'apple_pie' holds no list of image names")
    train.write_text(whole.replace('"apple_pie":', '"\\ud800":'))
    refused("food101", root, str(train), "cannot name a class")
    train.unlink()
    text = edit(train.with_suffix(".txt"), "apple_pie/999", "apple_pie")
    refused("food101", root, f"{text}, line 2", "'apple_pie' is not like")


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("categories_places365.txt", "/b/bakery/shop 2", "/b/bakery/shop 3", "line 3: the number 3"),
        ("categories_places365.txt", "/b/bakery/shop 2", "/b/bakery/shop 1", "line 3: the number 1 is repeated"),
        ("categories_places365.txt", "/b/bakery/shop 2", "shop", "line 3: 'shop' is not like"),
        ("categories_places365.txt", "/b/bakery/shop 2", "/b/airfield 2", "two classes are named 'airfield'"),
        ("categories_places365.txt", "/b/bakery/shop 2\n", "", "is no image and its number from 0 to 1"),
        ("places365_train_standard.txt", "00000004.jpg 0", "00000004.jpg 3", "line 1: "),
        ("places365_train_standard.txt", "00000004.jpg 0", "00000004.jpg -1", "line 1: "),
        ("places365_train_standard.txt", "00000004.jpg 0", "00000004.jpg", "line 1: "),
        ("places365_train_standard.txt", "/a/airfield/00000004.jpg 0", "", "line 1: "),
        ("places365_train_standard.txt", " 2\n", " 1\n", "no training image of class 'bakery/shop'"),
        ("places365_val.txt", " 2\n", " 1\n", "no test image of class 'bakery/shop'"),
    ],
)
def test_damaged_places_lists_are_refused(file, old, new, words, tmp_path):
    root = make("places365", tmp_path)
    edit(root / file, old, new, count=1000)
    refused("places365", root, str(root), words)


def test_places_as_they_unpack_are_told_to_be_renamed(tmp_path):
    root = make("places365", tmp_path)
    (root / "data_256_standard").rename(root / "data_256")
    refused("places365", root, "has neither data_256_standard with val_256", "rename data_256")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"images":', '"pictures":', "lacks the list 'images'"),
        ('"file_name":', '"name":', "images entry 1 lacks 'file_name'"),
        ('"image_id": 5000', '"image_id": "5000"', "lacks 'image_id', or it is no int"),
        ('"image_id": 5000', '"image_id": 4999', "image 4999 has two annotations"),
        ('"image_id": 5000', '"image_id": 1', "image 5000 (train_val_images/Plantae/Planus n° 0/train0000.jpg) has no"),
        ('"id": 5000,', '"id": 4999,', "has no annotation or is listed twice"),
        ('"category_id": 5', '"category_id": 99', "of category 99, which is not listed"),
        ('"categories": [{"id": 5', '"categories": [{"id": 4', "category 4 occurs twice"),
        ('"Planus n\\u00b0 0"', '"Planus n\\u00b0 1"', "two classes are named"),
        ('"name": "Planus', '"name": "\\ud800', "cannot name a class"),
        ('"name": "Planus', '"name": "Other', "of different releases"),
    ],
)
def test_damaged_inat_files_are_refused(old, new, words, tmp_path):
    root = make("inat2017", tmp_path)
    edit(root / "train2017.json", old, new)
    refused("inat2017", root, str(root), words)


def test_inat_annotations_of_images_not_listed_are_refused(tmp_path):
    root = make("inat2017", tmp_path)
    content = json.loads((root / "val2017.json").read_text())
    content["images"].pop()
    (root / "val2017.json").write_text(json.dumps(content))
    refused("inat2017", root, "val2017.json", "1 annotations are of images not listed")


def test_too_few_species_and_bad_class_lists_are_refused(tmp_path):
    root = make("inat2017", tmp_path)
    refused("inat2017", root, "6 species have at least 10 training images", "7 are needed", classes=7)
    refused("inat2017", root, "inat2017 plantae: 2 species", subset="plantae", classes=3)
    species = tmp_path / "list.txt"
    for text, words in (
        ("\n", "is empty; expected: a text file with a species a line"),
        ("Aves/Avesus n° 0\nAves/Dodo\n", "line 2: 'Aves/Dodo' is no species"),
        ("Aves/Avesus n° 0\nAves/Avesus n° 0\n", "line 2: 'Aves/Avesus n° 0' is listed already"),
    ):
        species.write_text(text, encoding="utf-8")
        refused("inat2017", root, str(species), words, class_list=species)
    refused("inat2017", root, "gone.txt", "a species a line", class_list=tmp_path / "gone.txt")
    with pytest.raises(ConfigError, match=r"task\.subset=birds"):
        read_task("inat2017", root, subset="birds", seed=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: the columns are ''"),
        ("path,label\n", "lists no image"),
        ("path;label\na.jpg;x\n", "line 1: the columns are 'path;label'"),
        ("path,label,path\n", "line 1: the columns are"),
        ("path,label,split,more\n", "line 1: the columns are"),
        ("path,label\na.jpg\n", "line 2: 1 cells under 2 columns"),
        ("path,label\na.jpg,x,train\n", "line 2: 3 cells under 2 columns"),
        ("path,label\na.jpg,\n", "line 2: the label is empty"),
        ("path,label,split\na.jpg,x,val\n", "line 2: the split is 'val'"),
        ("path,label,split\na.jpg,x,\n", "line 2: the split is ''"),
        ("path,label,split\na.jpg,x,train\n", "no test image of class 'x'"),
        ("path,label,split\na.jpg,x,test\n", "no training image of class 'x'"),
        ("path,label\na.jpg,x\n", "class 'x' has one image"),
        ("path,label\na.jpg,x\n,x\n", "entry 2: '' is no plain relative path"),
        ('path,label\n"a.jpg,x\n', "no CSV in UTF-8"),
        ('path,label\na.jpg,"x\ny"\n', "cannot name a class"),
        ("path,label\na.jpg,caf\udce9\n", "no CSV in UTF-8"),
    ],
)
def test_damaged_csv_files_are_refused(text, words, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    refused("csv", path, str(path), words)


# The table of readers


def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.kind=food: .* food101, places365"):
        read_task("food", tmp_path)
    assert set(READERS) == {"imagefolder", "parquet", *KINDS}


def test_reading_and_checking_tasks_needs_no_torch_and_scipy_only_for_mat_files():
    code = "import sys, sept.data.check; print({'torch', 'scipy', 'torchvision'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
