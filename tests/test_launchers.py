"""A sweep through launchers that run cells in other processes: nothing is computed twice, failures are not lost.

joblib's part of the first is in test_sweeps.py.
"""

import json
from collections import Counter
from pathlib import Path

from conftest import run


def manifests(store: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in store.glob("*/*/manifest.json")]


def test_cells_in_parallel_share_what_they_need(tmp_path: Path) -> None:
    store = tmp_path / "store"
    choices = ["+table=quickstart", "finetune.seed=0,1", "init=random"]
    done = run(*choices, "hydra/launcher=submitit_local", store=store)
    assert done.returncode == 0, done.stderr
    made = manifests(store)
    assert Counter(each["stage"] for each in made)["pretrain"] == 1
    assert all(each["attempts"] == 1 for each in made)
    assert "2 fine-tunings" in done.stdout  # both are in the row


def test_a_cell_that_fails_in_another_process_fails_the_command_and_no_other_cell(tmp_path: Path) -> None:
    choices = ["+table=quickstart", "finetune.seed=0", "init=rand_init", "task=food101,patterns_a"]
    done = run(*choices, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", store=tmp_path / "store")
    assert done.returncode == 65
    assert "no such folder" in done.stderr
    assert [each["stage"] for each in manifests(tmp_path / "store")].count("finetune") == 1
    assert "missing" in done.stdout
