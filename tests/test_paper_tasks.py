"""The paper's commands, end to end on miniatures of the official files, with the micro networks."""

import json
import shutil
import subprocess
from pathlib import Path

import detection_layouts
import numpy as np
import official
import pyarrow.parquet as pq
import pytest
from conftest import Tiny, run
from PIL import Image

SMALL = [
    *("retriever=ibot_micro", "retriever.weights=sept:ibot_micro"),
    *("backbone=swin_micro", "pretrain=moby_micro", "finetune=classify_micro", "compute=micro", "compute.epochs=2"),
    *("pretrain.batch_size=16", "pretrain.queue=32", "pretrain.hidden_dim=32", "pretrain.warmup_epochs=0"),
    *("finetune.epochs=2", "finetune.warmup_epochs=0", "finetune.test_every=1"),
    *("pool=in22k_intern", "pool.curated=null", "pool.without=[intern]"),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[str]:
    """Two sources of a pool: synset folders with JPEGs, and one tar's worth of loose PNGs."""
    root = tmp_path_factory.mktemp("pool")
    for n in range(30):
        official.put(root / "imagenet22k" / f"n{n % 3:08d}" / f"n{n % 3:08d}_{n}.JPEG", n % 3, n)
    for n in range(20):
        path = root / "web" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    return [f"pool.sources.in22k.path={root}/imagenet22k", f"+pool.sources.web={{kind:folder,path:{root}/web}}"]


def finished(done: subprocess.CompletedProcess[str], store: Path) -> dict:
    """Facts of the fine-tuning the command ended in."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("top-1")
    [folder] = (store / "finetune").iterdir()
    return json.loads((folder / "manifest.json").read_text())["facts"]


def test_food101_5shot_ends_in_a_row(sources, tmp_path):
    official.make_food101(tmp_path / "data", classes=4, train=6, test=3)
    store = tmp_path / "store"
    choices = ["+experiment=food101_5shot", f"task.path={tmp_path}/data", "budget.images=32"]
    facts = finished(run(*choices, *SMALL, *sources, store=store), store)
    assert (facts["classes"], facts["shots"], facts["tests"]) == (4, 20, 12)
    [selection] = (store / "selection").iterdir()
    keys = pq.read_table(selection / "selection.parquet")["pool_key"].to_pylist()
    assert len(set(keys)) == 32
    assert {key.split("/")[0] for key in keys} <= {"in22k", "web"}
    again = run(*choices, *SMALL, *sources, "shot=half", "plan=true", store=store)
    rows = {line.split()[0]: line.split()[1:5] for line in again.stdout.splitlines() if line}
    assert rows["features"][:3] == ["2", "2", "0"]  # cached
    assert rows["queries"] == ["1", "0", "1", "12"]  # half of each of four classes of six


def test_an_inaturalist_task_of_given_species_ends_in_a_row(sources, tmp_path):
    root = official.make_inat2017(tmp_path / "inat2017")
    listed = tmp_path / "species.txt"
    listed.write_text("".join(f"{above}/{above[:4]}us n° {n}\n" for above in ("Plantae", "Aves") for n in range(2)))
    store = tmp_path / "store"
    choices = ["+experiment=inat_m1k_5shot", f"task.path={root}", f"task.class_list={listed}", "init=random"]
    facts = finished(run(*choices, "budget.images=16", *SMALL, *sources, store=store), store)
    assert (facts["classes"], facts["shots"], facts["tests"]) == (4, 20, 8)
    [task] = (store / "task").iterdir()
    assert sorted((task / "classes.txt").read_text().split("\n")) == sorted(listed.read_text().split("\n"))


def test_a_places_task_ends_in_a_row(tmp_path):
    root = official.make_places365(tmp_path / "places365", classes=3, train=11, test=2)
    store = tmp_path / "store"
    choices = ["+experiment=places365_10shot", f"task.path={root}", "init=rand_init"]
    facts = finished(run(*choices, *SMALL, store=store), store)
    assert (facts["classes"], facts["shots"], facts["tests"]) == (3, 30, 6)


def test_boxes_are_looked_up_one_by_one_or_images_as_a_whole(sources, tmp_path):
    detection_layouts.make_voc(tmp_path / "data")
    store = tmp_path / "store"
    choices = ["task=voc", f"task.path={tmp_path}/data", "task.images=4", "budget.images=16", *SMALL, *sources]
    found = {}
    for query in ("image", "instance"):
        done = run(*choices, f"query={query}", store=store, script="search.py")
        assert done.returncode == 0, done.stderr
        found[query] = done.stdout
    queries = [pq.read_table(path)["id"].to_pylist() for path in sorted((store / "queries").glob("*/queries.parquet"))]
    whole, boxes = sorted(queries, key=lambda ids: "#" in ids[0])
    assert len(whole) == 4
    assert {box.split("#")[0] for box in boxes} <= set(whole)
    assert f"for {len(boxes)} images of voc" in found["instance"]
    trained = run(*choices, "query=instance", store=store)
    assert trained.returncode == 78
    assert "does not fit task=voc: finetune=detect does" in trained.stderr


def test_boxes_are_asked_for_where_there_are_none(tiny: Tiny):
    done = run("query=instance", store=tiny.store, script="search.py")
    assert done.returncode == 78
    assert "query=instance needs annotated boxes" in done.stderr


def test_data_that_are_not_there_are_named_with_their_layout_before_any_work(sources, tmp_path):
    done = run("+experiment=food101_5shot", f"task.path={tmp_path}/none", *SMALL, *sources, store=tmp_path / "store")
    assert done.returncode == 65
    assert "none: no such folder; expected: images/apple_pie/1005649.jpg" in done.stderr
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    official.make_food101(tmp_path / "data", classes=2, train=6, test=2)
    choices = ["+experiment=food101_5shot", f"task.path={tmp_path}/data", "pool.sources.in22k.path=/nowhere"]
    done = run(*choices, *SMALL, "budget.images=16", store=tmp_path / "store")
    assert done.returncode == 65
    assert "/nowhere" in done.stderr
    assert not (tmp_path / "store").exists()
