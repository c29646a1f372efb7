"""The smallest experiment that goes through every stage, made once a test session, and ways to run it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # the first example may import, and other work may run beside
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # train.py and search.py are no part of the package

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
    "finetune.test_every=1",
    "hardware.accelerator=cpu",
    "hardware.threads=1",
]


def command(*overrides: str, script: str = "train.py", without: tuple[str, ...] = ()) -> list[str]:
    """without: beginnings of tiny settings that do not fit."""
    kept = [setting for setting in TINY if not setting.startswith(without)] if without else TINY
    return [sys.executable, str(ROOT / script), *kept, *overrides]


def environment(store: Path) -> dict[str, str]:
    return {**os.environ, "SEPT_STORE": str(store), "OMP_NUM_THREADS": "1"}


def run(
    *overrides: str, store: Path, script: str = "train.py", without: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The command with the tiny settings, beside its store, to its end."""
    return subprocess.run(
        command(*overrides, script=script, without=without),
        env=environment(store),
        cwd=store.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


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
    """The store after `+table=quickstart finetune.seed=0`, and what the command said."""

    store: Path
    done: subprocess.CompletedProcess[str]

    def folder(self, stage: str, slug: str = "") -> Path:
        [path] = (self.store / stage).glob(f"{slug}*")
        return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    store = tmp_path_factory.mktemp("tiny") / "store"
    done = run("+table=quickstart", "finetune.seed=0", store=store)
    assert done.returncode == 0, done.stderr
    return Tiny(store, done)
