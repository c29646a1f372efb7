"""A pool and a task are called like their folder, which is no part of a key; two of one name are told apart."""

import shlex
from pathlib import Path

import pytest
from conftest import TINY
from test_tasks import make_classes

from sept.app.plan import plan
from sept.compose import expand, experiment
from sept.compose.names import leaves
from sept.overrides import command
from sept.paths import called
from sept.pipeline import Pipeline
from sept.runtime.hardware import resolve
from sept.tables import rows


@pytest.mark.parametrize(
    ("path", "pattern", "name"),
    [
        ("/data/photos/", False, "photos"),
        ("data/../flowers", False, "flowers"),
        ("flowers.zip", False, "flowers"),
        ("a/birds.v2.TAR.gz", False, "birds.v2"),
        ("v1.2", False, "v1.2"),
        ("a/list.csv", False, "list"),
        ("/a/[2019] walk", False, "[2019] walk"),
        ("/a/web-{000..009}.tar", True, "web"),
        ("/a/web/part-*.parquet", True, "part"),
        ("/a/web/*.tar", True, "web"),
        ("/a/web/[ab]?.zip", True, "web"),
        ("https://host/web/{00..12}.tar?key=a/b", True, "web"),
        ("/a/one\ntwo\udce4", False, "one_two_"),
        ("/", False, ""),
    ],
)
def test_a_path_gives_a_name(path, pattern, name):
    assert called(path, pattern) == name


def test_a_folder_may_be_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert called(".") == tmp_path.name


OWN = ["pool=folder", "pool.path=/data/photos", "task=imagefolder", "task.path='/x/flowers.zip'"]


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], ("photos", "flowers")),
        (["task.name=mine", "pool.name=yours"], ("yours", "mine")),
        (["pool=webdataset", "pool.path='/w/web-{0..3}.tar'", "task=csv", "task.path=/l/birds.csv"], ("web", "birds")),
        (["task=food101", "task.path=/x/own", "pool=in22k", "pool.path=/y/own"], ("in22k", "food101")),
        (["task.path=/data/food101", "pool.path=/data/in22k"], ("folder-in22k", "imagefolder-food101")),
        (["task.path=/data/imagefolder", "pool.path=/"], ("folder", "imagefolder")),
    ],
)
def test_a_pool_and_a_task_are_called_like_their_folders_and_the_command_of_a_run_too(overrides, names):
    """A folder that is called like an official data set is not taken for it, nor for its numbers in the paper."""
    keys = {text.partition("=")[0] for text in overrides}
    e = experiment([*(text for text in OWN if text.partition("=")[0] not in keys), *overrides])
    assert (e.pool.name, e.task.name) == names
    again = shlex.split(command(e))[2:]
    assert leaves(experiment(again)) == leaves(e)
    assert not [text for text in again if ".kind=" in text]  # the option of the kind is named


def folders(root: Path) -> list[str]:
    """Four pools and tasks, in folders of the same names but of other images."""
    for number, place in enumerate(("a", "b")):
        make_classes(root / place / "photos", {"x": 40 + number})
        make_classes(root / place / "flowers", {"oak": 10 + number, "ash": 10})
    return ["pool=folder", "task=imagefolder", "shot.per_class=1", f"store.root={root}/store"]


def test_names_are_no_part_of_a_key(tmp_path):
    own = [*folders(tmp_path), f"pool.path={tmp_path}/a/photos", f"task.path={tmp_path}/a/flowers"]
    plain, named = (experiment([*TINY[5:], *own, *more]) for more in ([], ["pool.name=p", "task.name=t"]))
    first, second = (Pipeline(e, resolve(e.hardware)).run.walk() for e in (plain, named))
    assert [step.key for step in first] == [step.key for step in second]
    slugs = [{step.stage: step.slug for step in steps} for steps in (first, second)]
    assert slugs[0]["finetune"] == "flowers-sept-seed0.0"
    assert slugs[1]["selection"] == "p-sept-t-32"


def test_two_folders_of_one_name_are_two_rows_that_are_told_apart(tmp_path):
    settings = [*TINY[5:], *folders(tmp_path), "finetune.seed=0"]
    two = f"pool.path={tmp_path}/a/photos,{tmp_path}/b/photos", f"task.path={tmp_path}/b/flowers"
    lines = rows(expand("quickstart", [*settings, *two]))
    assert [(line["init"], line["pool"], line["task"], line["variant"]) for line in lines] == [
        ("rand_init", None, "flowers", None),
        ("random", "a/photos", "flowers", None),
        ("random", "b/photos", "flowers", None),
        ("sept", "a/photos", "flowers", None),
        ("sept", "b/photos", "flowers", None),
    ]
    two = f"task.path={tmp_path}/a/flowers,{tmp_path}/b/flowers", f"pool.path={tmp_path}/b/photos"
    lines = rows(expand("quickstart", [*settings, *two, "init=rand_init"]))
    assert [(line["task"], line["variant"]) for line in lines] == [("a/flowers", None), ("b/flowers", None)]
    spelt = f"{tmp_path}/b/../b/photos/,{tmp_path}/b/photos"
    lines = rows(expand("quickstart", [*settings, f"pool.path={spelt}", two[0], "init=random"]))
    assert [(line["task"], line["pool"]) for line in lines] == [("a/flowers", "photos"), ("b/flowers", "photos")]


def test_of_two_data_sets_that_were_given_one_name_the_paths_are_told(tmp_path):
    settings = [*TINY[5:], *folders(tmp_path), "finetune.seed=0", "init=random", "pool.name=p", "task.name=t"]
    paths = f"{tmp_path}/a/photos,{tmp_path}/b/photos"
    lines = rows(expand("quickstart", [*settings, f"pool.path={paths}", f"task.path={tmp_path}/a/flowers"]))
    assert [(line["pool"], line["variant"]) for line in lines] == [
        ("p", f"pool.path={tmp_path}/{place}/photos") for place in ("a", "b")
    ]


def test_a_plan_tells_two_tasks_of_one_name_apart_also_where_they_are_missing(tmp_path):
    settings = [*TINY[5:], *folders(tmp_path), f"pool.path={tmp_path}", "finetune.seed=0", "init=rand_init"]
    there = plan("t", expand("quickstart", [*settings, f"task.path={tmp_path}/a/flowers,{tmp_path}/b/flowers"]))
    assert [f"task flowers in {tmp_path}/{place}/flowers: 2 classes" in there for place in ("a", "b")] == [True, True]
    gone = plan("t", expand("quickstart", [*settings, f"task.path={tmp_path}/c/flowers,{tmp_path}/d/flowers"]))
    assert "2 cells, 2 of them distinct" in gone
    missing = gone.partition("missing on this machine:\n")[2].splitlines()
    assert [line.split(": ")[0] for line in missing] == [f"  task {tmp_path}/{place}/flowers" for place in ("c", "d")]
