"""A sweep through launchers that run cells in other processes: nothing is computed twice, failures are not lost."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import Tiny, run


def manifests(store: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in store.glob("*/*/manifest.json")]


def test_cells_in_other_processes_share_work_and_a_failure_costs_its_own_cells(tiny: Tiny, tmp_path: Path) -> None:
    """Two tasks, one without its data, and two seeds: what both cells of a task need is forced, and built once."""
    store = tmp_path / "store"
    shutil.copytree(tiny.store, store)
    before = {(each["stage"], each["key"]): each["facts"] for each in manifests(store)}
    choices = ["+table=quickstart", "finetune.seed=0,1", "init=random", "task=food101,patterns_a"]
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "store.force=[pretrain,finetune]"]
    done = run(*choices, *parallel, store=store)
    assert done.returncode == 65
    assert "no such folder" in done.stderr
    assert "missing" in done.stdout
    assert "2 fine-tunings" in done.stdout  # both are in the row
    made = manifests(store)
    assert all(each["attempts"] == 1 for each in made)
    again = Counter(each["stage"] for each in made if each["earlier"])
    assert again == {"pretrain": 1, "finetune": 1}  # of seed 0
    assert all(each["earlier"]["builds"] == 1 for each in made if each["earlier"])
    added = {(each["stage"], each["key"]): each["facts"] for each in made}
    assert [stage for stage, _ in added.keys() - before.keys()] == ["finetune"]  # of seed 1
    assert {key: added[key] for key in before} == before


@pytest.mark.slow
def test_submitits_jobs_share_what_they_need(tmp_path: Path) -> None:
    store = tmp_path / "store"
    choices = ["+table=quickstart", "finetune.seed=0,1", "init=random"]
    done = run(*choices, "hydra/launcher=submitit_local", store=store)
    assert done.returncode == 0, done.stderr
    made = manifests(store)
    assert Counter(each["stage"] for each in made)["pretrain"] == 1
    assert all(each["attempts"] == 1 for each in made)
    assert "2 fine-tunings" in done.stdout
