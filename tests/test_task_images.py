"""The task's training images join a pre-training within the budget, or are all of it; its test images never do."""

import json
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Tiny, run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sept.compose import experiment
from sept.config import Experiment
from sept.data.subset import Joined, Subset, write_subset
from sept.errors import ConfigError
from sept.pipeline import Pipeline
from sept.results import choices
from sept.runtime.hardware import resolve
from sept.store import Step, Store

KEPT = [setting for setting in TINY if not setting.startswith(("task.", "budget."))]
OWN = 80  # training images of the tiny task


def composed(*overrides: str) -> Experiment:
    return experiment([*TINY, *overrides])


def pipeline(e: Experiment) -> Pipeline:
    return Pipeline(e, resolve(e.hardware))


def picture(seed: int) -> np.ndarray:
    """Coarse grey levels, by which copies are known."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((40, 40), Image.Resampling.BICUBIC))


def folder_task(root: Path, train: int, test: int, copied: int = 0) -> Path:
    """Two classes; of each the first `copied` training images are its first test images."""
    for index, name in enumerate(("a", "b")):
        for split, count in (("train", train), ("test", test)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                of_test = split == "test" or i < copied
                Image.fromarray(picture(1000 * index + 500 * of_test + i)).save(folder / f"{i:03}.png")
    return root


def packed(task: Path, store: Path, *overrides: str, side: int = 32) -> tuple[Subset, dict]:
    e = composed(f"task.path={task}", "task=imagefolder", "init=target_only", *overrides)
    made = Store(store).make(pipeline(e)._task_images(side))
    return Subset.open(made.path), made.facts


@settings(max_examples=5)
@given(train=st.integers(1, 6), test=st.integers(1, 4), per_class=st.integers(1, 8), side=st.sampled_from([16, 32, 64]))
def test_all_training_images_and_no_test_image_are_packed(
    tmp_path_factory: pytest.TempPathFactory, train: int, test: int, per_class: int, side: int
) -> None:
    folder = tmp_path_factory.mktemp("own")
    task = folder_task(folder / "task", train, test)
    images, facts = packed(task, folder / "store", f"shot.per_class={per_class}", side=side)
    expected = [path for name in ("a", "b") for path in sorted((task / "train" / name).iterdir())]
    assert len(images) == facts["images"] == len(expected) == 2 * train
    for place, path in enumerate(expected):
        whole = Image.open(path).convert("RGB")
        wanted = whole if side >= 40 else whole.resize((side, side), Image.Resampling.BICUBIC)
        assert (images.image(place) == np.asarray(wanted)).all()
    assert (facts["copies_of_test_images"], facts["copies_removed"]) == (0, 0)


@pytest.mark.parametrize(("leak", "left"), [("report", 10), ("remove", 6)])
def test_training_images_that_show_a_test_image_are_told_or_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, leak: str, left: int
) -> None:
    images, facts = packed(folder_task(tmp_path / "task", 5, 3, copied=2), tmp_path / "store", f"leak={leak}")
    assert (len(images), facts["copies_of_test_images"], facts["copies_removed"]) == (left, 4, 10 - left)
    assert "4 training images of the task are copies of test images" in caplog.text


def test_an_archive_and_its_folder_are_packed_alike(tmp_path: Path) -> None:
    task, archive = folder_task(tmp_path / "task", 3, 2), tmp_path / "task.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(task.rglob("*.png")):
            file.writestr(path.relative_to(task).as_posix(), path.read_bytes())
    one, other = (packed(each, tmp_path / "store")[0] for each in (task, archive))
    assert [one.image(i).tolist() for i in range(6)] == [other.image(i).tolist() for i in range(6)]


@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_joined_subsets_are_one_after_the_other(tmp_path_factory: pytest.TempPathFactory, counts: list[int]) -> None:
    parts, expected = [], []
    for number, count in enumerate(counts):
        folder = tmp_path_factory.mktemp("part")
        pixels = [np.full((2, 3, 3), 16 * number + i, np.uint8) for i in range(count)]
        write_subset(folder, enumerate(pixels), 9)
        parts.append(Subset.open(folder))
        expected += pixels
    for joined in (Joined(parts), pickle.loads(pickle.dumps(Joined(parts)))):
        assert len(joined) == len(expected)
        assert all((joined.image(i) == each).all() for i, each in enumerate(expected))
        for outside in (-1, len(expected)):
            with pytest.raises(IndexError):
                joined.image(outside)


def of(e: Experiment, stage: str) -> Step:
    return next(step for step in pipeline(e).run.walk() if step.stage == stage and "curated" not in step.slug)


def test_the_selection_gives_up_as_many_places_as_the_task_has_images() -> None:
    plain, joined = composed("budget.images=120"), composed("budget.images=120", "include_task=true")
    fewer = composed(f"budget.images={120 - OWN}")
    assert of(joined, "selection").key == of(fewer, "selection").key != of(plain, "selection").key
    assert of(joined, "pretrain").estimate == of(plain, "pretrain").estimate
    assert of(joined, "pretrain").spec == of(plain, "pretrain").spec
    assert [*of(joined, "pretrain").inputs] == ["subset", "task_images"]
    assert [*of(plain, "pretrain").inputs] == ["subset"]
    random = composed("budget.images=120", "include_task=true", "init=random")
    assert of(random, "pretrain").inputs["task_images"].key == of(joined, "pretrain").inputs["task_images"].key


def test_the_task_alone_is_trained_on_whatever_the_budget_and_the_pool() -> None:
    alone = composed("init=target_only")
    assert [each.stage for each in pipeline(alone).run.walk()] == [
        *("task", "fingerprints", "subset", "pretrain", "finetune")
    ]
    for other in ("budget.images=300", "pool.images=500", "retriever.seed=1"):
        assert of(composed("init=target_only", other), "finetune").key == of(alone, "finetune").key
    beside = replace(alone, include_task=True)  # as in a sweep of inits
    assert of(beside, "finetune").key == of(alone, "finetune").key
    assert of(alone, "pretrain").estimate["images"] == 2 * OWN


def test_equal_images_are_as_many_steps_as_another_selection_takes() -> None:
    what = ["budget.images=330", "compute.epochs=7"]
    told = of(composed("init=target_only", *what), "pretrain").about
    assert told.startswith(
        "target_only: 80 images, all training images of patterns_a without labels, 35 steps; budget.images=330 would "
        "be 140: for as many with any selector, compute.epochs=null compute.images="
    )
    equal = ["budget.images=330", "compute.epochs=null", f"compute.images={told.rpartition('=')[2]}"]
    sept, alone = (of(composed(f"init={init}", *equal), "pretrain") for init in ("sept", "target_only"))
    assert sept.estimate == of(composed(*what), "pretrain").estimate
    assert alone.spec.steps == 140  # type: ignore[attr-defined]
    few = of(composed("init=target_only"), "pretrain").about
    assert few == "target_only: 80 images, all training images of patterns_a without labels, 10 steps"


def test_what_cannot_be_is_told_in_one_line() -> None:
    with pytest.raises(ConfigError) as refused:
        _ = pipeline(composed("include_task=true")).run
    assert str(refused.value) == (
        "include_task=true: the 80 training images of task=patterns_a leave nothing of budget.images=32 to the pool: "
        "raise it, or use selector=target_only"
    )
    with pytest.raises(ConfigError, match=r"^the task's 80 training images are less than one batch: pretrain\.batch"):
        _ = pipeline(composed("init=target_only", "pretrain.batch_size=100", "pretrain.queue=100")).run
    with pytest.raises(ConfigError, match=r"^selector=target_only chooses no images of the pool: train\.py"):
        _ = pipeline(composed("init=target_only")).chosen
    for init in ("target_only", "rand_init"):
        with pytest.raises(ConfigError, match=rf"^include_task=true would have no effect: {init} pre-trains on no"):
            composed(f"init={init}", "include_task=true")


def test_rows_name_what_was_trained_on() -> None:
    def told(*overrides: str) -> tuple:
        found = choices(composed("budget.images=120", *overrides))
        return tuple(found[name] for name in ("init", "budget", "query", "retriever", "pool"))

    retriever = "ibot_micro_train"
    assert told("include_task=true") == ("sept with task", 120, "image", retriever, "patterns")
    assert told("include_task=true", "init=random") == ("random with task", 120, None, None, "patterns")
    assert told("init=target_only") == ("target_only", None, None, None, None)
    assert told("init=simcore", "budget.images=null")[:2] == ("simcore", "auto")


def test_runs_train_on_them_and_say_so(tiny: Tiny, tmp_path: Path) -> None:
    store = tmp_path / "store"  # of its own: other tests look into the common one
    shutil.copytree(tiny.store, store)
    joined = run("budget.images=120", "include_task=true", store=store)
    alone = run("init=target_only", store=store)
    found = run("init=simcore", "budget.images=null", "selector.clusters=8", "selector.min_distance=0.01", store=store)
    for done in (joined, alone, found):
        assert done.returncode == 0, done.stderr
    assert (
        "selection sept: include_task=true: the training images of patterns_a, without labels, are 80 of "
        "budget.images=120, 40 are of the pool"
    ) in joined.stderr
    assert "init=sept with task, budget=120" in joined.stdout
    assert "init=target_only, seed=0, finetune_seed=0, 80 images" in alone.stdout
    assert "selection simcore: budget=auto: how many images, and their FLOPs, is known after the" in found.stderr
    facts = {
        path.parent.name.partition("-seed0")[0]: json.loads(path.read_text())["facts"]
        for path in (store / "pretrain").glob("*/manifest.json")
    }
    assert facts["patterns-sept-patterns_a-40-patterns_a-own"]["images"] == 120
    assert facts["patterns-sept-patterns_a-40-patterns_a-own"]["steps"] == 2 * (120 // 16)
    assert facts["patterns_a-own"]["images"] == OWN
    [selected] = (store / "selection").glob("patterns-simcore-patterns_a-auto-*")
    chosen = json.loads((selected / "manifest.json").read_text())["facts"]
    assert facts["patterns-simcore-patterns_a-auto"]["images"] == chosen["images"]
    assert (chosen["queries"], chosen["centres"]) == (80, 8)
    assert chosen["near_duplicates_skipped"] > 0
    assert f"{chosen['images']} images" in found.stdout
