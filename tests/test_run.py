"""The whole program: a row from nothing, the same row after any kill, and one line with an exit code for bad input."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, TINY, Tiny, command, environment, run, start
from PIL import Image
from two_processes import imported

from sept import api
from sept.commands import train
from sept.costs.bill import cost, total
from sept.costs.settings import Carbon
from sept.ledger import record
from sept.store import Store
from sept.store.maintenance import verify
from sept.store.step import load_artefact

COPIED = ("pool", "task", "retriever")


def test_a_table_is_computed_printed_and_whole(tiny: Tiny):
    rows = [line for line in tiny.done.stdout.splitlines() if line.startswith("top-1")]
    assert [re.findall(r"init=(\w+)", row) for row in rows] == [["rand_init"], ["random"], ["sept"]]
    assert "quickstart: top-1 on the test set" in tiny.done.stdout
    assert verify(Store(tiny.store, mode="read-only")) == []
    assert not any((tiny.store / ".unfinished").iterdir())


def test_the_backbone_loads_in_timm_as_the_run_says(tiny: Tiny):
    code = re.findall(r"backbone: (.*patterns-sept.*)", tiny.done.stderr)[0]
    import timm  # takes seconds, and most tests here need none of it

    model = eval(code, {"timm": timm})
    assert model.num_classes == 10


def test_the_same_command_again_computes_nothing(tiny: Tiny):
    before = {path: path.stat().st_mtime_ns for path in tiny.store.rglob("*") if path.is_file()}
    again = run("init=sept", store=tiny.store)
    assert again.returncode == 0
    assert f"everything is in {tiny.store}" in again.stderr
    assert again.stdout.startswith("top-1")
    assert before == {path: path.stat().st_mtime_ns for path in tiny.store.rglob("*") if path.is_file()}


def copied(tiny: Tiny, store: Path) -> Path:
    """A store with what takes long to make."""
    for name in (*COPIED, "store.json"):
        copy = shutil.copytree if (tiny.store / name).is_dir() else shutil.copy
        store.mkdir(exist_ok=True)
        copy(tiny.store / name, store / name)
    return store


def test_two_devices_and_a_watch_on_the_shots_change_no_key_and_hardly_the_result(tiny: Tiny, tmp_path):
    store = copied(tiny, tmp_path / "store")
    with imported():
        api.run([*TINY, "init=random", "hardware.devices=2", "logger.knn_every=1", f"store.root={store}"])
    [one], [two] = (list((root / "pretrain").glob("patterns-random*")) for root in (tiny.store, store))
    assert one.name == two.name
    facts = [json.loads((folder / "manifest.json").read_text())["facts"] for folder in (one, two)]
    for name in ("loss_over_chance", "feature_std", "effective_rank"):
        assert facts[1][name] == pytest.approx(facts[0][name], rel=0.05)
    [curves] = (two / "curves").glob("*/metrics.csv")
    rows = list(csv.DictReader(curves.read_text().splitlines()))
    assert [float(row["step"]) for row in rows if row["knn_top1"]] == [2, 4]  # after each of two epochs
    assert all(row[name] for name in ("queue_age", "momentum", "lr") for row in rows if row["loss"])


def stopped(store: Path, sign: str, number: int) -> int:
    """Run the command, send it the signal once it has written `sign` in the unfinished folder, and give its exit
    status."""

    def written() -> set[tuple[str, int]]:  # whoever holds their folder, which its name tells
        found = (store / ".unfinished").glob(sign)
        return {(path.name, path.stat().st_mtime_ns) for path in found if path.exists()}

    before = written()
    process = start("init=sept", "hardware.checkpoint_every_s=0", store=store)
    deadline = time.monotonic() + 120
    while not written() - before:
        assert process.poll() is None, f"ended before {sign} was there: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode


def payload(store: Path, stage: str) -> dict[str, dict[str, bytes]]:
    """The files of every artefact of a stage but its curves, which tell of attempts, and its manifest, of times."""
    return {
        folder.name: {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "manifest.json" and path.relative_to(folder).parts[0] != "curves"
        }
        for folder in sorted((store / stage).iterdir())
    }


def bill(store: Path) -> dict[str, dict]:
    """What the ledger knows of every artefact, by the name of its folder."""
    return {folder.name: record(load_artefact(folder)) for folder in Store(store, mode="read-only").artefact_folders()}


def test_killed_in_every_stage_the_same_command_gives_the_same_files(tiny: Tiny, tmp_path):
    store = tmp_path / "store"
    copied(tiny, store)
    assert stopped(store, "features-*/work.json", signal.SIGKILL) == -signal.SIGKILL
    assert stopped(store, "pretrain-*/checkpoints/*.pt", signal.SIGTERM) == 75
    assert stopped(store, "pretrain-*/checkpoints/*.pt", signal.SIGKILL) == -signal.SIGKILL
    assert stopped(store, "finetune-*/checkpoints/*.pt", signal.SIGKILL) == -signal.SIGKILL
    done = run("init=sept", store=store)
    assert done.returncode == 0, done.stderr
    for stage in ("features", "queries", "selection", "subset", "pretrain", "finetune"):
        found, whole = payload(store, stage), payload(tiny.store, stage)
        assert found
        assert found == {name: whole[name] for name in found}
    resumed = json.loads(next((store / "finetune").glob("*/manifest.json")).read_bytes())
    first = json.loads(next((tiny.store / "finetune").glob("*sept*/manifest.json")).read_bytes())
    assert (resumed["resumed"], first["resumed"]) == (True, False)
    assert resumed["facts"] == first["facts"]
    spent, undisturbed = bill(store), bill(tiny.store)
    for folder in (store / "pretrain").iterdir():  # its steps are counted once, and the time of every attempt
        assert spent[folder.name]["attempts"] == 3
        assert spent[folder.name]["flops"] == undisturbed[folder.name]["flops"] > 0
        assert spent[folder.name]["used"]["cpu_s"] > 0
    rows = [record for name, record in undisturbed.items() if name in spent]
    assert total(map(partial(cost, carbon=Carbon()), spent.values())).flops == sum(each["flops"] for each in rows)
    assert verify(Store(store, mode="read-only")) == []


FORMATS = {
    "RGB": "JPEG",
    "L": "JPEG",
    "CMYK": "JPEG",
    "I;16": "PNG",
    "P": "GIF",
    "RGBA": "WEBP",
    "LA": "PNG",
    "1": "TIFF",
}


def encoded(n: int) -> tuple[str, bytes]:
    """File name and bytes of the nth image, in every mode and format in turn."""
    mode, rng = list(FORMATS)[n % len(FORMATS)], np.random.default_rng(n)
    height, width = (int(side) for side in rng.integers(20, 90, 2))
    coarse = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    colour = Image.fromarray(coarse).resize((width, height))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257)
    else:
        image = colour.convert(mode)
    stream = io.BytesIO()
    image.save(stream, FORMATS[mode], **({"save_all": True, "append_images": [image]} if mode == "P" else {}))
    return f"{n % 5}/{n:03d}.{FORMATS[mode].lower()}", stream.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A pool of 60 files of which 3 are no images, and a task of 3 classes of 6."""
    root = tmp_path_factory.mktemp("images")
    for n in range(60):
        name, data = encoded(n)
        write(root / "pool" / name, {10: b"", 20: data[: len(data) // 2], 30: b"<html>404</html>"}.get(n, data))
    for n in range(18):
        name, data = encoded(100 + n)
        write(root / "task" / "abc"[n % 3] / Path(name).name, data)
    return root


def own(images: Path, tiny: Tiny, *overrides: str) -> list[str]:
    weights = tiny.folder("retriever") / "backbone" / "model.safetensors"
    folders = [f"pool=folder pool.path={images}/pool task=imagefolder task.path={images}/task"]
    return [*" ".join(folders).split(), f"retriever.weights={weights}", "shot.per_class=3", *overrides]


def test_own_folders_end_in_a_row_and_broken_images_are_named(tiny: Tiny, images, tmp_path):
    done = run(*own(images, tiny, "hardware.workers=1"), store=tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert "task=task, shot=3, init=sept, " in done.stdout  # the folders' names
    assert "pool=pool, " in done.stdout
    assert [*(tmp_path / "store" / "finetune").glob("task-sept-*")]
    [manifest] = (tmp_path / "store" / "features").glob("*/manifest.json")
    facts = json.loads(manifest.read_bytes())["facts"]
    assert (facts["rows"], facts["embedded"], facts["skipped"]) == (60, 57, 3)
    assert sorted(Path(each["key"]).stem for each in facts["unreadable"]) == ["010", "020", "030"]
    assert all(each["reason"] for each in facts["unreadable"])


def test_a_table_of_own_folders_compares_over_seeds_of_everything(tiny: Tiny, images, tmp_path):
    """Two seeds of three inits: six cells, four pre-trainings."""
    done = run("+table=compare", *own(images, tiny), "seed=0,1", store=tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("│ 2 seeds ") == 6  # rows, and the differences between them
    assert len(re.findall(r"│ task │ 3 +│ (?:rand_init|random +|sept +) │", done.stdout)) == 3
    assert "vary more" not in done.stdout
    assert len([*(tmp_path / "store" / "pretrain").iterdir()]) == 4


def ended(monkeypatch, capsys, tmp_path, *overrides: str, tiny: list[str] = TINY) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of the command, run in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "failures", [])
    if not any(text.startswith("store.root=") for text in overrides):
        overrides = (*overrides, f"store.root={tmp_path}/store")
    monkeypatch.setattr(sys, "argv", ["train.py", *tiny, *overrides])
    try:
        train.main()
    except SystemExit as exit:
        code = exit.code
    else:
        code = 0
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("init", ["sept", "random"])
def test_too_many_broken_images_end_the_run(init, tiny, images, monkeypatch, capsys, tmp_path):
    overrides = own(images, tiny, "pool.max_unreadable=0.02", f"init={init}", "budget.images=57")
    code, lines = ended(monkeypatch, capsys, tmp_path, *overrides)
    assert code == 65
    message = r"[23] of the pool's 60 images are unreadable, more than pool.max_unreadable=0.02: '\d/0\d0.\w+' \(\w+ "
    assert re.search(message, lines[-1])
    assert not (tmp_path / "store" / "pretrain").exists()


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        ("pool=folder pool.path=nowhere", 65, "nowhere: no such folder of images"),
        ("pool=folder pool.path=empty", 65, "empty: holds no image at any depth"),
        ("pool=webdataset pool.path=nowhere.tar", 65, "nowhere.tar: no such tar"),
        ("task=imagefolder task.path=nowhere", 65, "nowhere: no such folder"),
        ("task=imagefolder task.path=IMAGES/task shot.per_class=9", 65, "class 'a' has 5 training images but shot.per"),
        ("shot.per_class=9", 78, "shot.per_class=9 but each class of the task has task.train_per_class=5"),
        (
            "pool=folder pool.path=IMAGES/pool budget.images=61",
            78,
            "budget.images=61 but the pool holds only 60 images",
        ),
        ("budget.images=401", 78, "budget.images=401 but the pool holds only 400"),
        ("retriever.weights=nowhere.pth", 78, "weights=nowhere.pth: there is no file"),
        ("budget=3k", 78, "budget=3k: no such option; did you mean"),
        ("seed=abc", 78, "seed=abc: must be a whole number"),
        ("budget.image=3", 78, "budget.image: no such setting; did you mean budget.images"),
        ("table=quickstart", 78, "table=quickstart: write +table=quickstart"),
        ("compute.epochs=0", 78, "compute.epochs=0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line_before_any_work(overrides, code, message, images, monkeypatch, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    given = overrides.replace("IMAGES", str(images)).split()
    found, lines = ended(monkeypatch, capsys, tmp_path, *given)
    assert (found, len(lines)) == (code, 1)
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("weights", "message"), [("garbage.pth", "cannot be read as tensors"), ("other.safetensors", "does not fit")]
)
def test_weights_that_are_none_or_others_are_refused(weights, message, tiny, monkeypatch, capsys, tmp_path):
    (tmp_path / "garbage.pth").write_bytes(b"no weights")
    shutil.copy(tiny.folder("retriever") / "backbone" / "model.safetensors", tmp_path / "other.safetensors")
    code, lines = ended(monkeypatch, capsys, tmp_path, "init=in1k_sup", f"init.weights={weights}")
    assert code == 78
    assert message in lines[-1]
    assert weights in lines[-1]


def test_a_store_of_another_version_is_refused(monkeypatch, capsys, tmp_path):
    write(tmp_path / "store" / "store.json", b'{"format": 99}')
    code, [line] = ended(monkeypatch, capsys, tmp_path)
    assert code == 78
    assert "has format 99" in line


def test_a_failed_cell_of_a_sweep_does_not_stop_the_others(tiny: Tiny, monkeypatch, capsys, tmp_path):
    sweep = ["-m", *TINY, "init=rand_init", "shot.per_class=50,5", f"store.root={tiny.store}"]
    code, lines = ended(monkeypatch, capsys, tmp_path, *sweep, tiny=[])
    assert code == 78
    assert [line for line in lines if line.startswith("error: ")] == [
        "error: shot.per_class=50 but each class of the task has task.train_per_class=5 images"
    ]
    assert any("everything is in" in line for line in lines)


def test_help_and_plan_answer_fast_and_without_torch(tmp_path):
    started = time.process_time(), os.times().children_user
    helped = run("--help", store=tmp_path / "store", anew=True)
    assert helped.returncode == 0
    assert "finetune" in helped.stdout
    assert os.times().children_user - started[1] < 3
    planned = subprocess.run(
        [sys.executable, "-X", "importtime", *command("plan=true")[1:]],
        env=environment(tmp_path / "store"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in planned.stderr.splitlines() if "import time:" in line}
    assert "hydra" in imported
    assert not imported & {"torch", "lightning", "timm", "wandb", "faiss", "torchvision"}
    assert not (tmp_path / "store").exists()


def test_tables_are_rendered_by_their_own_command(tiny: Tiny):
    done = subprocess.run(
        [sys.executable, "-m", "sept.tables", "quickstart", *TINY, "finetune.seed=0,1", "--csv"],
        env=environment(tiny.store),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split(",") for line in done.stdout.splitlines()]
    init, n = lines[0].index("init"), lines[0].index("n")
    assert [(line[init], line[n]) for line in lines[1:]] == [("rand_init", "1"), ("random", "1"), ("sept", "1")]
