"""The advice is right on pools whose truth is known: all task, none of it, near-duplicates, features that tell nothing,
and the embedded world with its own retriever and with one of random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run
from PIL import Image
from safetensors.torch import save_file

import sept
from sept.app.advice import LEAST_LIFT, blind, findings, sentences
from sept.backbones.networks import build
from sept.compose import experiment
from sept.data.patterns.drawing import MIXTURES, pool_items
from sept.errors import ConfigError
from sept.retrieval.advice import apart, effective_rank, left_out, lift, measure, to_nearest
from sept.retrieval.embedding import embed
from sept.retrieval.features import Features

CLASSES, DIM = 16, 64
HARDWARE = ["hardware.accelerator=cpu", "hardware.threads=1", "hardware.workers=0"]
NAMES = [f"class {i % CLASSES}" for i in range(5 * CLASSES)]


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class World:
    """Classes of the task are points near its middle; other kinds have other middles."""

    def __init__(self, seed=0, spread=0.1):
        self.rng = np.random.default_rng(seed)
        self.middle = self.rng.standard_normal(DIM)
        self.centres = self.middle + spread * self.rng.standard_normal((CLASSES, DIM))

    def task(self, count):
        return unit(self.centres[np.arange(count) % CLASSES] + 0.25 * self.rng.standard_normal((count, DIM)))

    def others(self, count, kinds=20):
        middles = self.rng.standard_normal((kinds, DIM))
        return unit(middles[np.arange(count) % kinds] + 0.5 * self.rng.standard_normal((count, DIM)))


def written(folder, vectors):
    embed(folder, len(vectors), lambda first, last: (vectors[first:last], []), 0)
    return Features.open(folder)


def report(tmp_path, pool, shots, budget=200, **more):
    mixed = pool[np.random.default_rng(9).permutation(len(pool))]
    return measure(written(tmp_path, mixed), shots, NAMES, budget, **more)


def kinds(r):
    return [each.kind for each in findings(r)]


def test_of_a_pool_that_is_all_task_random_images_do_as_well(tmp_path):
    world = World()
    r = report(tmp_path, world.task(3000), world.task(80))
    assert kinds(r) == ["random"]
    assert r.telling.lift.value < LEAST_LIFT
    assert r.alike == pytest.approx(3000, rel=0.35)
    assert r.telling.apart.p < 0.01


def test_a_pool_with_none_of_the_task_is_told(tmp_path):
    world = World()
    r = report(tmp_path, world.others(3000), world.task(80))
    assert kinds(r) == ["task"]
    assert r.alike < 20
    assert "add the task's own training images" in findings(r)[0].text


def test_where_a_part_of_the_pool_is_of_the_task_selecting_pays_up_to_that_budget(tmp_path):
    world = World()
    pool, shots = np.concatenate([world.task(300), world.others(2700)]), world.task(80)
    few = report(tmp_path / "few", pool, shots, budget=150)
    assert kinds(few) == ["pays"]
    assert few.telling.lift.value == pytest.approx(10, rel=0.3)  # all of the 150 are of the task's tenth
    assert few.alike == pytest.approx(300, rel=0.4)
    many = report(tmp_path / "many", pool, shots, budget=1500)
    assert kinds(many) == ["budget"]
    ranks = dict(many.falls)
    assert ranks[100] > 0.8 * many.own > ranks[1500]


def test_where_only_the_classes_themselves_are_near_it_depends_on_whether_the_pool_has_them(tmp_path):
    world = World(spread=1.0)
    pool = np.concatenate([world.task(300), world.others(2700)])
    r = report(tmp_path, pool, world.task(80), budget=150)
    assert kinds(r) == ["classes"]
    assert r.telling.across.value < LEAST_LIFT < r.telling.lift.value


def test_near_duplicates_are_counted_and_where_they_come(tmp_path):
    world = World()
    pool = np.concatenate([world.task(100), world.others(400)])
    copies = unit(np.repeat(pool, 6, axis=0) + 0.0005 * np.random.default_rng(1).standard_normal((3000, DIM)))
    r = report(tmp_path, copies, world.task(80), budget=600)
    assert "duplicates" in kinds(r)
    assert r.redundant > 0.95
    assert r.repeated == pytest.approx(5 / 6, abs=0.05)
    assert r.repeats_from is not None
    assert r.repeats_from < 200


def test_without_near_duplicates_there_are_none(tmp_path):
    r = report(tmp_path, World().others(3000), World(1).task(80))
    assert (r.redundant, r.repeated, r.repeats_from) == (0, 0, None)


@pytest.mark.parametrize("seed", range(3))
def test_features_that_tell_nothing_ask_for_another_retriever_where_pixels_do_better(tmp_path, seed):
    world, rng = World(seed), np.random.default_rng(seed)
    common = 12 * rng.standard_normal(DIM)
    nothing = [unit(common + rng.standard_normal((n, DIM))) for n in (3000, 80)]
    telling = np.concatenate([world.task(200), world.others(1800)]), world.task(80)
    r = report(tmp_path, *nothing, pixels=telling)
    assert kinds(r) == ["retriever"]
    assert r.telling.cosine > 0.95
    assert "nearly all images look the same" in "\n".join(sentences(r))
    assert r.pixels.value > 2 * r.telling.lift.value


def test_a_lift_is_the_share_of_shots_found_over_the_share_taken():
    nearest, own = np.linspace(0, 1, 1000), np.array([0.95, 0.95, 0.5, 0.5])
    found = lift(nearest, own, 10_000, 1000)  # half of the shots are among the tenth
    assert found.value == pytest.approx(5)
    assert found.low < 5 < found.high


def test_a_shot_is_looked_for_from_the_others_only():
    shots = unit(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
    nearest, scores = left_out(shots)
    assert nearest.tolist() == [1, 0, 1]
    assert scores.max() < 1
    across, _ = left_out(shots, ["a", "a", "b"])
    assert across.tolist() == [2, 2, 1]
    assert to_nearest(shots, shots) == pytest.approx([1, 1, 1])


def test_classes_are_told_apart_or_by_chance():
    rng = np.random.default_rng(0)
    assert apart(World().task(80), NAMES).p < 0.01
    by_chance = [apart(unit(rng.standard_normal((80, DIM))), NAMES).p for _ in range(20)]
    assert sum(p < 0.05 for p in by_chance) <= 4
    assert apart(rng.standard_normal((4, DIM)), ["a"] * 4) is None
    assert apart(rng.standard_normal((4, DIM)), [*"abcd"]) is None


def test_the_effective_rank_counts_directions_used_alike():
    assert effective_rank(np.eye(8)) == pytest.approx(8)
    assert effective_rank(np.ones((8, 4))) == pytest.approx(1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A store with a small drawn pool, its shipped retriever, and a file of random weights for it."""
    folder = tmp_path_factory.mktemp("advice")
    backbone = experiment([]).retriever.backbone
    torch.manual_seed(0)
    weights = build(backbone.name, backbone.args, side=32).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "random.safetensors")
    return folder


def advised(folder: Path, *overrides: str) -> str:
    given = ["pool.images=4000", "advise=true", *overrides, "budget.images=200"]
    done = run(*given, *HARDWARE, store=folder / "store", script="search.py", without=("",))
    assert done.returncode == 0, done.stderr
    return done.stdout


def told(text: str) -> float:
    """The lift of the selection."""
    [line] = [line for line in text.splitlines() if line.startswith("  a selection: the 200 nearest")]
    return float(line.partition("hold about ")[2].partition(" times")[0])


def test_in_the_drawn_world_selecting_pays(drawn):
    text = advised(drawn)
    assert "selecting should pay" in text
    items = pool_items(MIXTURES["patterns"], 4000, 0)
    share = sum(item.domain == "glyphs" for part in items.values() for item in part) / 4000
    assert LEAST_LIFT < told(text) <= 1.7 / share  # at most all of the domain, within noise


@pytest.mark.slow
def test_random_weights_find_the_domain_by_its_looks_but_none_of_its_classes(drawn):
    text = advised(drawn, "retriever.weights=random.safetensors")
    assert "of the same class for" in text
    assert ": chance" in next(line for line in text.splitlines() if line.startswith("  classes"))


def test_a_blind_retriever_warns_before_the_training(tmp_path):
    """Noise among noise: nothing tells the task's images from the pool's."""
    rng = np.random.default_rng(0)
    labelled = [f"task/{split}/{name}/{i}" for split in ("train", "test") for name in "ab" for i in range(30)]
    for place in [*(f"pool/{i}" for i in range(400)), *labelled]:
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    noise = ["pool=folder", "pool.path=pool", "task=imagefolder", "task.path=task", "retriever=ibot_micro"]
    noise.append("shot.per_class=30")
    done = run(*noise, store=tmp_path / "store", without=("retriever", "pool", "task"))
    assert done.returncode == 0, done.stderr
    told = done.stderr
    assert told.count("cannot tell the task from the pool") + told.count("looks like the task throughout") == 1
    assert told.index("advise=true says more") < told.index("pre-train:")


@pytest.mark.parametrize("also", ["init=random", "query.path=photo.png"])
def test_advice_without_a_selection_is_refused(also):
    with pytest.raises(ConfigError, match="advise=true is about a selection"):
        experiment(["advise=true", also])


def test_advice_is_not_a_run():
    with pytest.raises(ConfigError, match="leave it out here"):
        sept.run(["advise=true"])


def test_a_retriever_that_tells_the_task_is_not_called_blind(tmp_path):
    world = World()
    r = report(tmp_path, np.concatenate([world.task(300), world.others(2700)]), world.task(80))
    assert blind(r.telling) is None
