"""`python -m sept.data.check` says what fits Table 1, what does not, what is missing and where it belongs."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import official
import pytest
from scipy.io import loadmat

from sept.data.check import TABLE1, TASKS, counts, main
from sept.data.tasks.task import Example, Task


def drawn(classes: int, train: int, test: int) -> Task:
    """A task of `train` images a class and `test` in all; the images themselves are not looked at."""
    examples = [Example(f"{n}", Path(f"{n}"), n % classes) for n in range(classes * train)]
    return Task([f"{n}" for n in range(classes)], examples, [Example("t", Path("t"), 0)] * test, listed=True)


def table1() -> dict[str, dict[str, str]]:
    with open(TABLE1, newline="") as file:
        return {row["task"]: row for row in csv.DictReader(file)}


def test_every_task_of_table_1_is_known():
    assert list(TASKS) == list(table1())


@pytest.mark.parametrize("name", TASKS)
def test_official_counts_fit_and_others_do_not(name):
    classes, test = int(table1()[name]["classes"]), int(table1()[name]["test"])
    assert all(count.ok for count in counts(name, drawn(classes, 10, test)))
    short = [count.what for count in counts(name, drawn(classes, 9, test)) if not count.ok]
    assert short == ["10-shot images"]
    fewer = [count.what for count in counts(name, drawn(classes - 1, 10, test)) if not count.ok]
    assert fewer == ["classes", "5-shot images", "10-shot images"]
    cut = [count.what for count in counts(name, drawn(classes, 10, test // 2)) if not count.ok]
    assert cut == ["test images"]


@pytest.mark.parametrize("name", TASKS)
def test_only_drawn_species_may_have_other_numbers_of_test_images(name):
    classes, test = int(table1()[name]["classes"]), int(table1()[name]["test"])
    found = counts(name, drawn(classes, 10, test + 1))[-1]
    assert found.ok == name.startswith("inat")
    assert ("species are not published" in str(found)) == name.startswith("inat")


# Expected test images of a uniform draw: validation images of the super-category over its species, times 1,000.
@pytest.mark.parametrize(("name", "expected"), [("inat_p1k", 18_185), ("inat_i1k", 17_704), ("inat_m1k", 18_471)])
def test_the_tolerance_holds_what_a_draw_is_expected_to_give(name, expected):
    assert counts(name, drawn(1000, 10, expected))[-1].ok
    assert not counts(name, drawn(1000, 10, 3000))[-1].ok


def test_a_whole_task_is_ok(tmp_path, capsys):
    root = official.make_flowers102(tmp_path, classes=102, train=10, test=60, valid=1)
    parts = {part: ids for part, ids in loadmat(root / "setid.mat").items() if not part.startswith("__")}
    parts["tstid"] = np.concatenate([parts["tstid"], parts["valid"][:, :29]], axis=1)
    official.save_mat(root / "setid.mat", parts)
    assert main(["flowers102", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["classes", "expected", "102", "found", "102", "ok"],
        ["5-shot", "images", "expected", "510", "found", "510", "ok"],
        ["10-shot", "images", "expected", "1,020", "found", "1,020", "ok"],
        ["test", "images", "expected", "6,149", "found", "6,149", "ok"],
    ]


def test_what_differs_is_counted_and_short_classes_are_named(tmp_path, capsys):
    official.make_food101(tmp_path, classes=2, train=10)
    official.make_food101(tmp_path / "short", classes=2, train=7)
    assert main(["food101", str(tmp_path)]) == 65
    assert "classes          expected     101  found         2  differs" in capsys.readouterr().out
    assert main(["food101", str(tmp_path / "short")]) == 65
    assert "class 'apple_pie' has 7 training images; 10-shot needs 10" in capsys.readouterr().out


def test_what_is_missing_is_named_with_its_place(tmp_path, capsys):
    root = official.make_stanford_cars(tmp_path)
    labels = root / "cars_test_annos_withlabels.mat"
    labels.unlink()
    assert main(["stanford_cars", str(tmp_path)]) == 65
    said = capsys.readouterr()
    assert said.err.startswith(f"{labels}: ")
    assert said.out.splitlines() == [
        "stanford_cars should lie like this (names are samples):",
        f"{root}/",
        "  cars_train/",
        "    00001.jpg",
        "  cars_test/",
        "    00001.jpg",
        "  devkit/",
        "    cars_meta.mat",
        "    cars_train_annos.mat",
        "  cars_test_annos_withlabels.mat  <- missing",
    ]
    assert main(["places365", str(tmp_path / "nowhere")]) == 65
    assert "  val_256/  <- missing\n" in capsys.readouterr().out


def test_too_few_species_are_told(tmp_path, capsys):
    official.make_inat2017(tmp_path)
    assert main(["inat_i1k", str(tmp_path)]) == 65
    assert "2 species have at least 10 training images, but 1,000 are needed" in capsys.readouterr().err


def test_an_unknown_task_or_no_folder_is_told_in_one_line(tmp_path, capsys):
    assert main(["food", str(tmp_path)]) == 78
    assert "food101" in capsys.readouterr().err
    assert main(["food101"]) == 78
    said = capsys.readouterr().err
    assert "name the folder" in said
    assert "meta/train.json" in said


def test_the_command_lists_what_it_knows():
    command = [sys.executable, "-m", "sept.data.check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(TASKS)
    assert "36,500 test images" in done.stdout
