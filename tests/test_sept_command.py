"""The command `sept`: its parts, options of one's own beside it, and the wheel it is installed from."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, run

from sept import __main__ as sept_command
from sept import compose
from sept.errors import ConfigError

MINE = "defaults:\n  - imagefolder\n  - _self_\npath: flowers\n"


def part(monkeypatch, *arguments: str) -> int | None:
    monkeypatch.setattr(sys, "argv", ["sept", *arguments])
    monkeypatch.setattr(sept_command.signals, "end_program", lambda: None)  # it is for a process of its own
    return sept_command.part()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with an option of its own, and one that is called like one of ours."""
    folder = tmp_path / "my project"
    (folder / "conf" / "task").mkdir(parents=True)
    (folder / "conf" / "task" / "mine.yaml").write_text(MINE)
    (folder / "conf" / "task" / "food101.yaml").write_text(MINE)
    monkeypatch.chdir(folder)
    return folder


def test_without_a_part_it_names_them(monkeypatch, capsys):
    assert part(monkeypatch) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:11]] == [*sept_command.PARTS]


def test_a_part_is_started_with_its_own_arguments(monkeypatch, capsys):
    assert part(monkeypatch, "check") == 0
    assert "food101" in capsys.readouterr().out
    assert part(monkeypatch, "check", "no_task") == 78


def test_a_new_project_plans_its_own_experiment(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert part(monkeypatch, "init", "my project", "--pool", "it's/photos") == 0
    assert capsys.readouterr().out.endswith("next: cd 'my project' && sept train +experiment=mine plan=true\n")
    monkeypatch.chdir("my project")
    e = compose.experiment(["+experiment=mine"])
    assert (e.pool.path, e.task.path, e.budget.images) == (f"{tmp_path}/it's/photos", "task", 1000)
    assert (e.task.kind, e.retriever.name, e.finetune.name) == ("imagefolder", "hog", "classify_small")
    assert Path(".gitignore").read_text().split() == ["store/", "outputs/", "wandb/", "multirun/"]
    monkeypatch.chdir(tmp_path)
    before = Path("my project/conf/task/mine.yaml").read_text()
    with pytest.raises(ConfigError, match=r"sept init: my project/.* is there already"):
        part(monkeypatch, "init", "my project")
    assert Path("my project/conf/task/mine.yaml").read_text() == before


def test_the_doctor_tells_what_a_run_finds(monkeypatch, tmp_path, capsys):
    for name in ("STORE", "DATA", "WEIGHTS"):
        monkeypatch.setenv(f"SEPT_{name}", str(tmp_path / name.lower()))
    (tmp_path / "data" / "food-101").mkdir(parents=True)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "ibot_vit_s16.pth").touch()
    assert part(monkeypatch, "doctor") == 0
    told = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {"sept", "python", "libraries", "optional", "GPU", "processor", "store", "data", "weights"} <= told.keys()
    assert "MISSING" not in told["libraries"]
    assert told["store"].startswith(f"store      {tmp_path}/store (SEPT_STORE): can be written")
    assert told["data"].endswith("(SEPT_DATA): food-101")
    assert "found ibot_vit_s16.pth of" in told["weights"]
    assert not (tmp_path / "store").exists(), "it only looks"


def test_the_doctor_says_that_the_store_cannot_be_written(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEPT_STORE", str(tmp_path / "file" / "store"))
    assert part(monkeypatch, "doctor") == 74
    assert "CANNOT BE WRITTEN" in capsys.readouterr().out


def test_an_unknown_part_is_one_line_with_the_nearest(monkeypatch):
    with pytest.raises(ConfigError, match="sept trian: no such part; did you mean train"):
        part(monkeypatch, "trian")


def test_its_help_shows_how_it_was_started(monkeypatch, capsys):
    part(monkeypatch, "search", "--help")
    assert capsys.readouterr().out.startswith("usage: sept search ")


def test_options_of_ones_own_are_chosen_like_ours_which_come_first(project):
    assert "mine" in compose.options("task")
    e = compose.experiment(["task=mine"])
    assert (e.task.kind, e.task.path, e.finetune.name) == ("imagefolder", "flowers", "classify_small")
    assert compose.experiment(["task=food101"]).task.kind == "food101"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path: [", r'expected the node content, .* in ".*conf/task/mine.yaml", line 1, column 8$'),
        ("- 1", "mine"),
        (
            "defaults: [imagefolder, _self_]\nclass_lists: x",
            "task.class_lists: no such setting; did you mean task.class_list",
        ),
    ],
)
def test_a_file_of_ones_own_that_cannot_be_read_is_one_line(project, text, told):
    (project / "conf" / "task" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told) as refused:
        compose.experiment(["task=mine"])
    assert "\n" not in str(refused.value)


def test_elsewhere_they_are_not_known(project, tmp_path, monkeypatch):
    assert compose.experiment(["task=mine"]).task.path == "flowers"
    monkeypatch.chdir(tmp_path)
    assert "mine" not in compose.options("task")
    with pytest.raises(ConfigError, match="mine"):
        compose.experiment(["task=mine"])


def test_hydra_finds_them_where_it_launches(project):
    done = run("task=mine", "--cfg", "job", store=project / "store")
    assert done.returncode == 0, done.stderr
    assert "path: flowers" in done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The contents of the wheel, built from a copy of what a release has."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "sept", folder / "sept", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=folder, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_what_the_clone_does(installed):
    def held(root: Path) -> set[str]:
        files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(root).as_posix() for path in files}

    assert held(installed / "sept") == held(ROOT / "sept")


def test_the_wheel_works_in_any_folder_with_options_of_ones_own(installed, project):
    place = {**os.environ, "PYTHONPATH": str(installed), "SEPT_STORE": str(project / "store")}

    def sept(*arguments: str) -> str:
        asked = [sys.executable, "-m", "sept", *arguments]
        return subprocess.run(asked, env=place, capture_output=True, text=True, check=True).stdout

    assert sept("train", "plan=true").startswith("plan of this run: 1 cell")
    assert "path: flowers" in sept("train", "task=mine", "--cfg", "job")
    origin = "import sept, sept.compose; print(sept.__file__, sept.compose.program('train'))"
    asked = subprocess.run([sys.executable, "-c", origin], env=place, capture_output=True, text=True, check=True)
    assert asked.stdout.split(maxsplit=1) == [str(installed / "sept" / "__init__.py"), "sept train\n"]
