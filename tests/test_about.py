"""A plan says in words what a run reads, from listings read once; a class alone is refused where it teaches nothing."""

from pathlib import Path

import pytest
from test_official_tasks import make
from test_pipeline import experiment
from test_tasks import make_classes

from benchmarks import plan_own_images
from sept.app.plan import plan
from sept.config import Experiment
from sept.errors import DataError
from sept.pipeline import Pipeline
from sept.runtime.hardware import resolve


def own(folder: Path, *overrides: str) -> Experiment:
    """The same class folders as pool and as task."""
    places = [f"pool.path='{folder}'", f"task.path='{folder}'", f"store.root='{folder}.store'"]
    return experiment("pool=folder", "task=imagefolder", "budget.images=16", "shot.per_class=1", *places, *overrides)


def lines(*cells: Experiment) -> list[str]:
    return sorted(line for line in plan("x", cells).splitlines() if line.startswith(("task ", "pool ")) and ":" in line)


def test_a_plan_names_classes_and_sources(tmp_path):
    make_classes(tmp_path, {"oak": 10, "ash": 12, "elm": 10, "yew": 10})
    (tmp_path / "0.jpg").write_bytes(b"x")
    e = own(tmp_path)
    assert lines(e, own(tmp_path, "seed=1")) == [
        f"pool {tmp_path.name}: 43 images in {tmp_path}",
        f"task {tmp_path.name} in {tmp_path}: 4 classes (ash, elm, oak, ..), images of each: 8 to 10 to train on, "
        f"2 to test on; {tmp_path}: images beside its class folders are not used: 1",
    ]


def test_a_plan_tells_archives_and_lists_and_the_drawn_world(tmp_path):
    for number in range(3):
        (tmp_path / f"a-{number}.tar").write_bytes(bytes(10240))
    (tmp_path / "list.txt").write_text("a.jpg\n")
    union = ["pool=in22k_intern", "pool.without=[]", "init=random", "budget.images=16"]
    for name, kind, path in (("in22k", "webdataset", tmp_path), ("intern", "list", tmp_path / "list.txt")):
        union += [f"pool.sources.{name}.kind={kind}", f"pool.sources.{name}.path='{path}'"]
    drawn, pools = "images of each: 5 to train on, 3 to test on, drawn", lines(experiment(*union))
    assert pools == [
        f"pool in22k_intern-in22k: 3 tar files of {tmp_path}, images not counted yet",
        f"pool in22k_intern-intern: the images that are listed in {tmp_path / 'list.txt'}, not counted yet",
        f"task patterns_a: 16 classes of glyphs, {drawn}",
    ]
    assert lines(experiment())[0] == "pool patterns: 400 images of 32 px, drawn"
    assert lines(experiment("task=food101", "task.path=/nowhere", "shot.per_class=5", "init=rand_init")) == []


def test_a_plan_tells_a_task_with_splits(tmp_path):
    path = make("csv", tmp_path)
    told = lines(experiment("task=csv", f"task.path='{path}'", "shot.per_class=1", "init=rand_init"))
    classes = "3 classes (class 0, class 1, class 2)"
    assert told == [f"task list in {path}: {classes}, images of each: 4 to train on, 2 to test on"]


def test_a_listing_is_read_and_identified_once_for_all_cells(tmp_path):
    images = 200
    plan_own_images.write(tmp_path, images, 4)
    e, other = own(tmp_path), own(tmp_path, "seed=1")
    before = reads()
    plan("x", [e, other])
    assert reads() - before < 2 * images + 100  # once as a pool, once as a task


def reads() -> int:
    """Calls of this process that read from files."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        pytest.skip("this system does not count reads")
    return int(dict(line.split(": ") for line in text.splitlines())["syscr"])


@pytest.mark.parametrize("overrides", [["init=rand_init"], [], ["init=random", "plan=true"]])
def test_a_single_class_is_refused_before_any_work_and_can_be_searched_for(overrides, tmp_path):
    folder = make_classes(tmp_path / "one", {"a": 20})
    e = own(folder, *overrides)
    with pytest.raises(DataError, match=r"one has one class; a classifier needs two") as told:
        plan("x", [e])
    assert told.value.exit_code == 65
    assert Pipeline(e, resolve(e.hardware)).selection.estimate["images"] == 16
    assert not Path(f"{folder}.store").exists()


@pytest.mark.slow
def test_the_plan_of_a_hundred_thousand_images_takes_less_than_ten_cpu_seconds(tmp_path):
    plan_own_images.write(tmp_path, plan_own_images.IMAGES, plan_own_images.CLASSES)
    places = ["pool=folder", f"pool.path='{tmp_path}'", "task=imagefolder", f"task.path='{tmp_path}'"]
    assert plan_own_images.cpu_seconds(f"store.root='{tmp_path}/.store'", *places) < 10
