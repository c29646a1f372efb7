"""The smallest experiment that goes through every stage, made once a test session, and ways to run it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ready
from filelock import FileLock
from hypothesis import settings

# Each process of the tests has a core: more threads would wait for each other. Read when torch and numpy are imported.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

settings.register_profile("untimed", deadline=None)  # the first example may import, and other work may run beside
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # train.py and search.py are no part of the package

LONGEST_S = 300  # that a command may take

# Files that take longest, which start first: with `--dist loadfile` a process is alone with what it began last.
LONG = ["sweeps", "distributed", "run", "tracking", "plan", "pretended", "similar", "paper_tasks", "ray", "signals"]
LONG += ["launchers", "together", "crew", "detect_stage", "gpu_command", "full_size", "pipeline", "search", "fit"]
LONG += ["tables", "advice", "own_images", "task_images"]

TINY = [
    "retriever=ibot_micro_train",
    "pool.images=400",
    "task.train_per_class=5",
    "task.test_per_class=3",
    "retriever.epochs=1",
    "retriever.train.batch_size=50",
    "budget.images=32",
    "compute.epochs=2",
    "pretrain.batch_size=16",
    "pretrain.queue=32",
    "pretrain.warmup_epochs=1",
    "pretrain.hidden_dim=32",
    "finetune.epochs=3",
    "finetune.batch_size=40",
    "finetune.warmup_epochs=1",
    "finetune.min_steps=0",
    "finetune.test_every=1",
    "hardware.accelerator=cpu",
    "hardware.threads=1",
]


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):  # of pytest-xdist, which else begins with files of the most tests
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


def mostly_slow(values: Iterable[Any], kept: int = 1) -> list[Any]:
    """The first `kept` as they are, the others for `pytest -m slow`: of parameters that try the same code again."""
    every = list(values)
    return [*every[:kept], *(pytest.param(each, marks=pytest.mark.slow) for each in every[kept:])]


def command(*overrides: str, script: str = "train.py", without: tuple[str, ...] = ()) -> list[str]:
    """without: beginnings of tiny settings that do not fit."""
    kept = [setting for setting in TINY if not setting.startswith(without)] if without else TINY
    return [sys.executable, str(ROOT / script), *kept, *overrides]


def environment(store: Path) -> dict[str, str]:
    return {**os.environ, "SEPT_STORE": str(store)}


def start(
    *overrides: str,
    store: Path,
    script: str = "train.py",
    without: tuple[str, ...] = (),
    changed: Mapping[str, str] | None = None,
    start_new_session: bool = False,
) -> ready.Started | subprocess.Popen[str]:
    """The command with the tiny settings, beside its store. changed: its environment, if it is not the usual one."""
    given = command(*overrides, script=script, without=without)[1:]
    return ready.start(given, changed or environment(store), store.parent, start_new_session)


def run(
    *overrides: str, store: Path, script: str = "train.py", without: tuple[str, ...] = (), anew: bool = False
) -> subprocess.CompletedProcess[str]:
    """The same to its end. anew: by a new interpreter, as users start it."""
    given = command(*overrides, script=script, without=without)
    if anew:
        return subprocess.run(
            given,
            env=environment(store),
            cwd=store.parent,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    started = start(*overrides, store=store, script=script, without=without)
    out, err = started.communicate(LONGEST_S)
    return subprocess.CompletedProcess(given, started.returncode, out, err)


def results(store: Path) -> dict[str, tuple[dict, dict]]:
    """Facts (scores among them) and the files' digests of every artefact by its key; curves tell of attempts."""
    made = [json.loads(path.read_text()) for path in store.glob("*/*/manifest.json")]
    return {
        each["key"]: (
            each["facts"],
            {name: file for name, file in each["files"].items() if not name.startswith("curves/")},
        )
        for each in made
    }


@dataclass
class Tiny:
    """A copy of the store after `+table=quickstart finetune.seed=0`, and what the command said beside the first."""

    store: Path
    done: subprocess.CompletedProcess[str]

    def folder(self, stage: str, slug: str = "") -> Path:
        [path] = (self.store / stage).glob(f"{slug}*")
        return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Made by the first process of the tests that asks; each has a copy, and may add to it."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    made, said = folder / "made" / "store", folder / "made.json"
    with FileLock(folder / "made.lock"):
        if not said.exists():
            made.parent.mkdir()
            done = run("+table=quickstart", "finetune.seed=0", store=made, anew=True)
            said.write_text(json.dumps([done.args, done.returncode, done.stdout, done.stderr]))
    done = subprocess.CompletedProcess(*json.loads(said.read_text()))
    assert done.returncode == 0, done.stderr
    store = tmp_path_factory.mktemp("tiny") / "store"
    shutil.copytree(made, store)
    return Tiny(store, done)


@pytest.fixture
def unfused():
    """Attention as plain products: the counter adds what fused kernels compute again in the backward pass."""
    import timm.layers

    timm.layers.set_fused_attn(False)
    yield
    timm.layers.set_fused_attn(True)
