"""A sweep shares its work and survives: cells side by side, kills of all its processes, a damaged store, bad input."""

import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TINY, results, run, start

from sept.commands import train
from sept.compose import expand
from sept.results import CELL
from sept.store import Store
from sept.store.__main__ import main as upkeep
from sept.store.maintenance import verify
from sept.tables import rows

TABLE = "patterns_table2"
TWO_JOBS = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
SAVING = "hardware.checkpoint_every_s=0"  # after every step, so that kills meet half-done trainings
RENAMES = ".renames"  # of the store's name: what its processes moved where
RECORDER = f"""
import os
import sys


def note(event, arguments):
    if event == "os.rename" and "SEPT_STORE" in os.environ:
        record = os.open(os.environ["SEPT_STORE"] + "{RENAMES}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(record, os.fsencode(arguments[1]) + b"\\n")
        os.close(record)


sys.addaudithook(note)
"""


def cells(task: str = "patterns_a,patterns_b", init: str = "random,sept", again: str = "0,1") -> list[str]:
    """A part of the table; eight cells when nothing is named. again: seeds of fine-tuning."""
    return [f"+table={TABLE}", f"task={task}", f"init={init}", f"finetune.seed={again}", "seed=0", "shot=5shot"]


TWO = cells(task="patterns_a", init="random,sept", again="0")


@pytest.fixture(scope="module", autouse=True)
def _recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every Python process that is started here notes what it moves: a count of builds that is not the store's own."""
    folder = tmp_path_factory.mktemp("recorder")
    (folder / "sitecustomize.py").write_text(RECORDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


def moved(store: Path) -> list[Path]:
    record = store.with_name(store.name + RENAMES)
    return [Path(line) for line in record.read_text().splitlines()] if record.exists() else []


def begun(store: Path) -> Counter[str]:
    """How often each artefact was begun, by its unfinished folder, whoever built there."""
    return Counter(path.parent.name.partition("@")[0] for path in moved(store) if path.name == "work.json")


def published(store: Path) -> Counter[str]:
    """How often each artefact was put in place, by its folder."""
    placed = (path.relative_to(store).as_posix() for path in moved(store) if path.parent.parent == store)
    return Counter(path for path in placed if not path.startswith("."))


Results = dict[str, tuple[dict, dict]]
Swept = Callable[..., tuple[int, list[str], list[str]]]


def table(store: Path, *narrowed: str) -> list[dict]:
    """The rows of the table as `python -m sept.tables` reads them."""
    return rows(expand(TABLE, [*TINY, f"store.root={store}", *narrowed[1:]]))


def scores(store: Path, *narrowed: str) -> list[tuple]:
    """What the table compares, to the last digit."""
    return [(*(line[name] for name in CELL), line["n"], line["mean"]) for line in table(store, *narrowed)]


@dataclass
class Whole:
    """A sweep of eight cells that nothing disturbed."""

    store: Path
    results: Results
    said: str

    def copy(self, store: Path) -> Path:
        return Path(shutil.copytree(self.store, store))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    store = tmp_path_factory.mktemp("whole") / "store"
    done = run(*cells(), store=store)
    assert done.returncode == 0, done.stderr
    return Whole(store, results(store), done.stdout)


def test_eight_cells_compute_nothing_twice(whole: Whole) -> None:
    assert {line["n"] for line in table(whole.store, *cells())} == {2}
    assert whole.said.count("│ 2 fine-tunings │") == 6  # rows of the table that the command printed, and differences
    assert set(begun(whole.store).values()) == set(published(whole.store).values()) == {1}
    assert len(published(whole.store)) == len(whole.results)
    made = Counter(path.partition("/")[0] for path in published(whole.store))
    assert (made["retriever"], made["features"], made["pretrain"], made["finetune"]) == (1, 1, 3, 8)
    assert verify(Store(whole.store, mode="read-only")) == []


def kill_at(moment: random.Random, store: Path, *overrides: str) -> None:
    """Starts the sweep and kills all its processes once they have moved some files, and a while later."""
    goal, deadline = len(moved(store)) + moment.randint(1, 16), time.monotonic() + 120
    sweep = start(*overrides, store=store, start_new_session=True)
    try:
        while len(moved(store)) < goal:
            assert sweep.poll() is None, sweep.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moment.uniform(0, 0.3))
    finally:
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.communicate(timeout=60)
    assert sweep.returncode == -signal.SIGKILL, "the sweep had ended"


@pytest.mark.parametrize(
    ("kills", "chosen"),
    [(2, TWO), pytest.param(10, [*cells(), *TWO_JOBS], marks=pytest.mark.slow)],
)
def test_killed_over_and_over_a_sweep_ends_in_the_same_table(
    kills: int, chosen: list[str], whole: Whole, tmp_path: Path
) -> None:
    store, moment, sweep = tmp_path / "store", random.Random(0), [*chosen, SAVING]
    for _ in range(kills):
        kill_at(moment, store, *sweep)
        assert verify(Store(store, mode="read-only")) == []
    done = run(*sweep, store=store)
    assert done.returncode == 0, done.stderr
    assert any(count > 1 for count in begun(store).values())  # some kills met a build
    assert set(published(store).values()) == {1}
    found = results(store)
    assert found == {key: whole.results[key] for key in found}
    assert scores(store, *chosen) == scores(whole.store, *chosen)
    assert verify(Store(store, mode="read-only")) == []
    assert not list((store / ".unfinished").iterdir())


def printed(out: str) -> list[str]:
    """Rows and table, without Hydra's own lines, which tell the time."""
    return [line for line in out.splitlines() if "[HYDRA]" not in line]


@pytest.mark.slow
def test_two_sweeps_at_once_share_all_work_and_print_one_table(whole: Whole, tmp_path: Path) -> None:
    store, chosen = tmp_path / "store", cells(init="sept", again="0")  # both tasks are searched for in one scan
    both = [start(*chosen, store=store) for _ in range(2)]
    (one, said), (two, also_said) = (each.communicate(timeout=300) for each in both)
    assert [each.returncode for each in both] == [0, 0], said + also_said
    assert printed(one) == printed(two)
    assert set(begun(store).values()) == set(published(store).values()) == {1}
    found = results(store)
    assert found == {key: whole.results[key] for key in found}
    assert scores(store, *chosen) == scores(whole.store, *chosen)


def cut(path: Path) -> None:
    """Leaves what a write that was cut off leaves: the first half, without the end of its last line."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one(store: Path, stage: str, slug: str) -> Path:
    [folder] = (store / stage).glob(f"{slug}*")
    return folder


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Swept:
    """Runs a sweep in this process, which spares imports; its exit code, lines that tell of errors, inits of rows."""

    def sweep(store: Path, *overrides: str) -> tuple[int, list[str], list[str]]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(train, "failures", [])
        arguments = ["train.py", *TINY, *overrides, f"store.root={store}"]
        monkeypatch.setattr(sys, "argv", arguments)
        code = 0
        try:
            train.main()
        except SystemExit as exit:
            code = exit.code
        said = capsys.readouterr()
        errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
        return code, errors, re.findall(r"^top-1 .* init=(\w+)", said.out, re.MULTILINE)

    return sweep


@pytest.mark.parametrize(
    ("stage", "slug", "there", "status"),
    [
        ("finetune", "patterns_a-sept-seed0.0", 1, "1 of 2 missing"),
        ("selection", "patterns-sept-patterns_a", 0, "missing"),
    ],
)
def test_a_manifest_that_was_cut_off_costs_its_own_cells_and_can_be_repaired(
    stage: str, slug: str, there: int, status: str, whole: Whole, swept: Swept, tmp_path: Path
) -> None:
    store = whole.copy(tmp_path / "store")
    damaged = one(store, stage, slug)
    cut(damaged / "manifest.json")
    code, [error], done = swept(store, *TWO)
    assert (code, done) == (65, ["random"])
    assert f"{damaged} is damaged: its manifest.json is not JSON; see `python -m sept.store verify`" in error
    lines = table(store, *cells(task="patterns_a", init="random,sept"))
    assert [(line["init"], line["n"], line["status"]) for line in lines] == [
        ("random", 2, ""),
        ("sept", there, status),
    ]
    assert str(damaged) in lines[1]["reason"]
    assert upkeep(["--root", str(store), "repair"]) == 0
    assert swept(store, *TWO) == (0, [], ["random", "sept"])
    assert scores(store, *TWO) == scores(whole.store, *TWO)


def test_unfinished_work_whose_record_was_cut_off_costs_its_own_cell(
    whole: Whole, swept: Swept, tmp_path: Path
) -> None:
    store = whole.copy(tmp_path / "store")
    made = one(store, "finetune", "patterns_a-sept-seed0.0")
    work = store / ".unfinished" / f"finetune-{made.name.rpartition('-')[2]}"
    made.rename(work)
    (work / "manifest.json").rename(work / "work.json")
    cut(work / "work.json")
    code, [error], done = swept(store, *TWO)
    assert (code, done) == (65, ["random"])
    assert f"{work / 'work.json'} is damaged; remove it with `python -m sept.store prune --unfinished`" in error
    lines = table(store, *TWO)
    assert [(line["init"], line["n"]) for line in lines] == [("random", 1), ("sept", 0)]
    assert str(work) in lines[1]["reason"]


def test_curves_that_were_cut_off_are_found_and_cost_nothing(whole: Whole, tmp_path: Path) -> None:
    store = whole.copy(tmp_path / "store")
    [curves] = one(store, "pretrain", "patterns-sept-patterns_a").glob("curves/*/metrics.csv")
    cut(curves)
    assert scores(store, *TWO) == scores(whole.store, *TWO)
    assert verify(Store(store, mode="read-only")) == [
        f"{curves.parents[2]}: {curves.relative_to(curves.parents[2])} was altered"
    ]


def test_a_format_file_that_was_cut_off_is_told_once_with_what_it_should_read(
    whole: Whole, swept: Swept, tmp_path: Path
) -> None:
    store = whole.copy(tmp_path / "store")
    cut(store / "store.json")
    told = f'error: {store}/store.json is damaged: it should read {{"format": 2}}'
    assert swept(store, *TWO) == (65, [told], [])
    (store / "store.json").write_text('{"format": 2}')  # as it says
    assert scores(store, *TWO) == scores(whole.store, *TWO)


@pytest.mark.parametrize("root", ["a file/store", "/proc/store"])  # what refuses root too
def test_a_disk_that_refuses_is_told_once_before_any_work(root: str, swept: Swept, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    code, [error], done = swept(tmp_path / root, *TWO)
    assert (code, done) == (74, [])
    assert str(tmp_path / root) in error
    assert error.endswith("; free space or choose another store root")
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_a_folder_that_refuses_the_settings_of_a_sweep_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").mkdir()  # refuses root too
    done = run(*TWO, *TWO_JOBS, store=tmp_path / "store")  # a sweep that Hydra launches
    assert done.returncode == 74
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/multirun.yaml: Is a directory; ")
    assert not (tmp_path / "store" / "results.jsonl").exists()


@pytest.mark.parametrize("launcher", [(), TWO_JOBS], ids=["basic", "joblib"])
def test_a_table_that_does_not_exist_is_refused_with_the_nearest_name(
    launcher: tuple[str, ...], tmp_path: Path
) -> None:
    done = run("+table=patterns_tabel2", *launcher, store=tmp_path / "store")
    assert (done.returncode, done.stdout) == (78, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: table=patterns_tabel2: no such option; did you mean patterns_table2")
    assert not (tmp_path / "store").exists()


def test_a_cell_without_its_data_fails_before_its_work_and_the_others_go_on(
    whole: Whole, swept: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEPT_DATA", str(tmp_path / "data"))
    store = whole.copy(tmp_path / "store")
    chosen = cells(task="food101,patterns_a", init="random,sept", again="7")
    code, errors, done = swept(store, *chosen)
    assert (code, done) == (65, ["random", "sept"])
    assert len(errors) == 2  # cells
    assert all(f"{tmp_path}/data" in error and "no such folder" in error for error in errors)
    made = [folder.parent.name for folder in Store(store).artefact_folders()]
    assert len(made) == len(whole.results) + 2  # the other cells' fine-tunings, and nothing for food101
    assert not any((store / ".unfinished").iterdir())
    lines = table(store, *chosen)
    assert [(line["task"], line["n"], line["status"]) for line in lines] == [
        *[("food101", 0, "missing")] * 2,
        *[("patterns_a", 1, "")] * 2,
    ]
    assert all("no such folder" in line["reason"] for line in lines[:2])
