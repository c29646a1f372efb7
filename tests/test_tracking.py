"""W&B beside the curves that are always kept: offline without a key, and never able to stop or change a training."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
from conftest import Tiny, environment, start
from ready import Started
from wandb_files import Run, offline_runs, read
from wandb_server import KEY, Server, serving

from sept import compose
from sept.config import Logger
from sept.runtime.hardware import no_loggers
from sept.tables import COLUMNS
from sept.tracking import GALLERY, REPORT, STEP, TABLE, follow, log_table
from sept.tracking import run as wandb_run
from sept.tracking.logger import SparingLogger
from sept.tracking.run import has_key

OFFLINE, ONLINE = (Logger(name="wandb", mode=mode) for mode in ("offline", "online"))


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No test inherits that W&B did not answer, the folder of another, nor a key or a mode of whoever runs them."""
    wandb.teardown()  # it reads its settings once
    monkeypatch.setattr(wandb_run.Server, "answers", True)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


def started(tiny: Tiny, folder: Path, *overrides: str, cached: tuple[str, ...] = ("task",), **known: str) -> Started:
    """The command with W&B in `folder`, whose store begins with what is cached; without a key unless one is known."""
    if not folder.exists():
        (folder / "store").mkdir(parents=True)
        shutil.copy(tiny.store / "store.json", folder / "store")
        for name in cached:
            shutil.copytree(tiny.store / name, folder / "store" / name)
    own = {name: value for name, value in environment(folder / "store").items() if not name.startswith("WANDB_")}
    return start(*overrides, "logger=wandb", store=folder / "store", changed={**own, "HOME": str(folder), **known})


def ended(process: Started, code: int = 0) -> tuple[str, str]:
    told = process.communicate(timeout=120)
    assert process.returncode == code, told
    return told


def once(process: Started, folder: Path, sign: str) -> Path:
    """The first file that fits, as soon as there is one."""
    deadline = time.monotonic() + 60
    while not (found := next(folder.glob(sign), None)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return found


def classifier(store: Path) -> bytes:
    [path] = store.glob("finetune/*rand_init*/classifier.safetensors")
    return path.read_bytes()


@pytest.fixture(scope="module")
def sent(tiny, tmp_path_factory) -> dict[str, Run]:
    """What W&B was sent of two cells and their table, by stage and slug."""
    folder = tmp_path_factory.mktemp("wandb") / "a"
    swept = ("+table=quickstart", "init=random,sept", "finetune.seed=0", "logger.knn_every=1")
    ended(started(tiny, folder, *swept, cached=("pool", "task")))
    return {run.title: run for run in offline_runs(folder)}


def manifest(run: Run) -> dict:
    """Of the artefact that a run is of."""
    [path] = run.folder.parents[2].glob(f"store/{run.config['stage']}/*{run.config['key'][:16]}/manifest.json")
    return json.loads(path.read_bytes())


TRAINED = [
    "pretrain patterns-random-32-seed0",
    "finetune patterns_a-random-seed0.0",
    "retriever ibot_micro_train",
    "pretrain patterns-sept-patterns_a-32-seed0",
    "finetune patterns_a-sept-seed0.0",
]


def test_every_trained_artefact_has_one_run_that_tells_what_it_is(sent):
    assert list(sent) == [*TRAINED, "table quickstart"]
    for title in TRAINED:
        run, made = sent[title], manifest(sent[title])
        assert run.id == f"{made['stage']}-{made['key'][:16]}"
        assert {name: run.config[name] for name in made["spec"]} == made["spec"]
        assert {name: run.config[name] for name in ("key", "stage", "version", "commit")} == {
            name: made[name] for name in ("key", "stage", "version", "commit")
        }
        assert title == f"{run.config['stage']} {run.config['slug']}"
        assert (run.config["cell"]["init"], run.config["cell"]["budget"]) == (made_for(title), 32)
        assert (run.exit_code, run.system > 0) == (0, True)


def made_for(title: str) -> str:
    return "random" if "random" in title else "sept"


@pytest.mark.parametrize("title", TRAINED)
def test_its_history_is_that_of_the_curves(title, sent):
    run = sent[title]
    [path] = run.folder.parents[2].glob(f"store/{run.config['stage']}/*{run.config['key'][:16]}/curves/*/metrics.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    for name in set(rows[0]) - {"step", "epoch"}:
        curve = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        assert [(row[STEP], row[name]) for row in run.history if name in row] == [
            (step, pytest.approx(value)) for step, value in curve
        ]
    assert {"loss", "lr"} < set(rows[0])


def test_its_summary_ends_with_the_facts_and_that_of_a_cell_with_its_cost(sent):
    for title in TRAINED:
        made = manifest(sent[title])
        expected = {**made["facts"], "wall_s": made["wall_s"]}
        assert {name: sent[title].summary[name] for name in expected} == expected
    cell, rows = sent["finetune patterns_a-sept-seed0.0"].summary, table(sent["table quickstart"])
    assert {"score", "metric", "top1", "frozen_top1", "flops", "wall_s"} < set(cell)
    assert (cell["total_flops"], cell["shared_flops"]) == (rows[1]["flops"], rows[1]["shared_flops"])
    assert cell["total_flops"] > cell["flops"]


def table(run: Run) -> list[dict]:
    held = json.loads((run.folder / run.summary[TABLE]["path"]).read_bytes())
    return [dict(zip(held["columns"], row, strict=True)) for row in held["data"]]


def test_the_table_has_its_rows_and_the_gallery_of_each_selection(sent):
    run = sent["table quickstart"]
    rows = table(run)
    assert list(rows[0]) == ["table", *COLUMNS]
    assert [(row["table"], row["init"], row["n"]) for row in rows] == [("quickstart", init, 1) for init in INITS]
    assert [row["mean"] for row in rows] == [
        sent[f"finetune patterns_a-{init}-seed0.0"].summary["score"] for init in INITS
    ]
    shown = run.summary[GALLERY]
    assert shown["captions"] == [
        "patterns_a, 5 shots, random, budget 32, pool patterns, seed 0",
        "patterns_a, 5 shots, sept, budget 32, query image, retriever ibot_micro_train, pool patterns, seed 0",
    ]
    assert all((run.folder / name).stat().st_size for name in shown["filenames"])


def test_the_report_of_a_table_is_sent_with_its_figures_as_it_is_written(sent):
    run = sent["table quickstart"]
    page = (run.folder / run.summary[REPORT]["path"]).read_text()
    assert page.startswith("<!doctype html>")
    assert "<svg" in page
    assert f"{table(run)[1]['mean']:.2f}" in page


INITS = ("random", "sept")


def test_views_are_sent_at_the_start_and_the_gallery_with_the_training_on_it(sent):
    for title in (title for title in TRAINED if "finetune" not in title):
        run = sent[title]
        assert len(run.summary["views"]["filenames"]) == 4
        assert run.summary["views"]["captions"][0] == "image 0"
        assert all((run.folder / name).is_file() for name in run.files)
        assert "views" in {**run.history[0], **run.history[1]}
    shown = [sent[f"pretrain {slug}"].summary[GALLERY]["captions"] for slug in (TRAINED[0][9:], TRAINED[3][9:])]
    assert shown == [[caption] for caption in sent["table quickstart"].summary[GALLERY]["captions"]]


def test_pictures_and_runs_change_nothing_of_what_is_trained(sent, tiny):
    for title in TRAINED:
        made = manifest(sent[title])
        [plain] = (tiny.store / made["stage"]).glob(f"*{made['key'][:16]}/manifest.json")
        weights = [name for name in made["files"] if name.endswith(".safetensors")]
        before = json.loads(plain.read_bytes())["files"]
        assert weights
        assert {name: made["files"][name] for name in weights} == {name: before[name] for name in weights}


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def asked(server, tmp_path, monkeypatch):
    """The same, known to wandb in this process."""
    monkeypatch.chdir(tmp_path)
    for name, value in known(server).items():
        monkeypatch.setenv(name, value)
    yield server
    wandb.teardown()


def known(server: Server) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}


def test_a_training_that_was_stopped_continues_its_run(server, tiny, tmp_path):
    folder, settings = tmp_path / "a", ("init=rand_init", "finetune.epochs=8", "hardware.checkpoint_every_s=0")
    first = started(tiny, folder, *settings, **known(server))
    once(first, folder, "store/.unfinished/*/checkpoints/step-00000000[4-9]*.pt")
    first.send_signal(signal.SIGTERM)
    ended(first, 75)
    ended(started(tiny, folder, *settings, **known(server)))
    [(name, run)] = server.runs.items()
    assert name.startswith("finetune-")
    assert [row[STEP] for row in run.history if "top1" in row] == list(range(2, 17, 2))
    assert [row["_step"] for row in run.history] == list(range(len(run.history)))
    assert run.summary["score"] == run.summary["top1"]
    assert json.loads(run.config)["cell"]["value"]["init"] == "rand_init"


def test_attempts_without_a_key_are_joined_by_wandb_sync_and_no_value_is_doubled(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    for steps in (range(6), range(3, 9)):  # killed after step 5, the last checkpoint being that before step 3
        run = wandb_run.begin(OFFLINE, "finetune-0", "a run", {}, goes_on=steps.start > 0)
        logger = SparingLogger(run, checkpoints / "sent", goes_on=steps.start > 0)
        for step in steps:
            logger.log_metrics({"loss": float(step)}, step)
        run.finish()
    wandb.teardown()  # its service writes the last of a run after that has ended
    assert [run.column("loss") for run in offline_runs(tmp_path)] == [[0, 1, 2, 3, 4, 5], [6, 7, 8]]
    place = {**os.environ, **known(server), "HOME": str(tmp_path)}
    asked = [str(Path(sys.executable).with_name("wandb")), "sync", "--yes"]
    subprocess.run(asked, env=place, capture_output=True, timeout=60, check=True)
    assert [(row["_step"], row[STEP], row["loss"]) for row in server.runs["finetune-0"].history] == [
        (step, step, step) for step in range(9)
    ]


@pytest.mark.parametrize("silent", ["at all", "to questions"])
def test_where_wandb_takes_connections_and_never_answers_the_run_is_kept_on_disk(
    silent, asked, tmp_path, monkeypatch, caplog
):
    for timeout, seconds in {"ANSWER_TIMEOUT_S": 1, "INIT_TIMEOUT_S": 1, "FINISH_TIMEOUT_S": 4}.items():
        monkeypatch.setattr(wandb_run, timeout, seconds)
    (asked.silent if silent == "at all" else asked.puzzled).set()
    log_table(ONLINE, "quickstart", ["init"], [["random"]])
    questions = asked.questions
    log_table(ONLINE, "quickstart", ["init"], [["random"]])
    assert asked.questions == questions > 0, "it is asked once"
    assert caplog.text.count("W&B does not answer, runs are kept in ./wandb for `wandb sync`") == 1
    wandb.teardown()
    assert [run.id for run in offline_runs(tmp_path)] == ["table-quickstart"] * 2


def test_where_wandb_falls_silent_a_run_ends_all_the_same(asked, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(wandb_run, "FINISH_TIMEOUT_S", 1)
    run = wandb_run.begin(ONLINE, "finetune-0", "a run", {}, goes_on=False)
    asked.silent.set()
    run.log({"loss": 1.0})
    started = time.monotonic()
    wandb_run.end(run, 0)
    assert time.monotonic() - started < 10, "without a limit wandb would wait on"
    assert "runs are kept in ./wandb" in caplog.text
    wandb.teardown()
    [left] = tmp_path.glob("wandb/run-*/run-finetune-0.wandb")
    assert read(left).column("loss") == [1]


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the service of W&B by /proc")
def test_when_the_service_of_wandb_dies_training_goes_on(tiny, tmp_path):
    process = started(tiny, tmp_path / "a", "init=rand_init")
    once(process, tmp_path / "a", "wandb/offline-run-*/run-finetune-*.wandb")
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"wandb" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    row, told = ended(process)
    assert row.startswith("top-1")
    assert "continuing without it" in told
    assert classifier(tmp_path / "a" / "store") == classifier(tiny.store)


def experiment(*overrides: str):
    return compose.experiment(["init=rand_init", *overrides])


def test_without_wandb_there_is_a_warning_and_no_logger(monkeypatch, caplog, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    made = follow(experiment("logger=wandb", f"store.root={tmp_path / 'store'}"))
    assert made(next(name for name in made.args[1] if name.startswith("finetune")), {}) == []
    assert "wandb is not available, continuing without it" in caplog.text


def test_csv_needs_no_further_logger():
    assert follow(experiment("logger=csv")) is no_loggers


@pytest.mark.parametrize(
    ("key", "url", "netrc", "expected"),
    [
        ("", "", "", False),
        ("abc", "", "", True),
        ("", "", "machine api.wandb.ai login user password abc", True),
        ("", "", "machine elsewhere login user password abc", False),
        ("", "https://elsewhere", "machine elsewhere login user password abc", True),
        ("", "", "no netrc file at all", False),
    ],
)
def test_a_key_is_found_where_wandb_login_puts_it(key, url, netrc, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", key)
    if url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
    (tmp_path / ".netrc").write_text(netrc)
    (tmp_path / ".netrc").chmod(0o600)
    assert has_key() is expected


def test_a_table_that_wandb_refuses_stops_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    log_table(OFFLINE, "a/name that is no id", ["init"], [["random"]])
    assert "wandb is not available, the table is not sent" in caplog.text
