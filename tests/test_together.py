"""A sweep searches its pool once for all its tasks, and selects what each task would have selected alone."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Tiny, run


def selections(store: Path) -> dict[str, bytes]:
    """The content of each selection for a task, by its folder."""
    found = store.glob("selection/patterns-sept-*/selection.parquet")
    return {path.parent.name: path.read_bytes() for path in found}


@pytest.fixture
def alone(tiny: Tiny, tmp_path: Path) -> dict[str, bytes]:
    """The first task's selection is there."""
    store = tmp_path / "alone" / "store"
    shutil.copytree(tiny.store, store)
    done = run("task=patterns_b", store=store, script="search.py")
    assert done.returncode == 0, done.stderr
    return selections(store)


def test_tasks_of_a_table_share_a_scan(alone: dict[str, bytes], tiny: Tiny, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for name in ("pool", "task", "retriever"):
        shutil.copytree(tiny.store / name, store / name)
    shutil.copy(tiny.store / "store.json", store)
    done = run("+table=patterns_table2", "task=patterns_a,patterns_b", "shot=5shot", "seed=0", "init=sept", store=store)
    assert done.returncode == 0, done.stderr
    assert "one scan of 400 images for 2 tasks" in done.stderr
    assert selections(store) == alone
    made = [json.loads(path.read_text()) for path in store.glob("features/*/manifest.json")]
    assert len(made) == 1
    again = run(
        "+table=patterns_table2", "task=patterns_a,patterns_b", "shot=5shot", "seed=0", "init=sept", store=store
    )
    assert "one scan" not in again.stderr
