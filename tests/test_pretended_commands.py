"""`train.py` and `search.py` in this process, every stage on a pretended device."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conftest
import micro
import pytest
from PIL import Image

from sept.compose import experiment
from sept.data.transforms import _on_device
from sept.gpu.pretended import OPERATORS, Device, pretended

sys.path.insert(0, str(conftest.ROOT))
pytestmark = pytest.mark.slow

DEVICE = ["hardware.accelerator=cuda", "hardware.threads=1", "hardware.workers=0"]
CLASSIFICATION_TASKS = [setting for setting in conftest.TINY if not setting.startswith("hardware.")]
SCENES = [
    *("retriever=ibot_micro", "pool=patterns_scenes", "pool.images=400", "budget.images=32", "compute.epochs=2"),
    *("pretrain.batch_size=16", "pretrain.queue=32", "pretrain.warmup_epochs=1", "pretrain.hidden_dim=32"),
    *("task.train_per_class=2", "task.test_per_class=1", "task.images=24"),
    *("finetune.epochs=1", "finetune.batch_size=8", "finetune.test_every=1"),
]
RUNS = {
    "classify_from_a_selection": CLASSIFICATION_TASKS,
    "classify_from_nothing": [*CLASSIFICATION_TASKS, "init=rand_init"],
    "classify_from_clusters": [*CLASSIFICATION_TASKS, "init=cluster", "index=int8", "leak=remove"],
    "detect": [
        *SCENES,
        *("task=patterns_boxes", "finetune=detect_micro", "finetune.milestones=[1]", "query=instance"),
    ],
    "segment": [*SCENES, "task=patterns_masks", "finetune=segment_micro"],
}


def on_device(store: Path, settings: list[str], run: Callable[[Any], Any]) -> tuple[Any, Device]:
    with pretended() as device:
        return run(experiment([*settings, *DEVICE, f"store.root={store}"])), device


@pytest.mark.parametrize("name", RUNS)
def test_train_runs_to_its_row(name: str, tmp_path: Path) -> None:
    from sept.commands import train

    row, device = on_device(tmp_path / "store", RUNS[name], train.run)
    assert row["status"] == "done"
    assert 0 <= row["score"] <= 100
    assert device.counts[OPERATORS] > 1000
    _on_device.cache_clear()  # two constants that are kept on purpose, by the first run of a process
    assert device.memory.held == 0  # stages have let go what they had


def test_search_draws_its_gallery_and_looks_a_photo_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sept.commands import search

    monkeypatch.chdir(tmp_path)
    photo = tmp_path / "photo.png"
    Image.fromarray(micro.images(1)[0]).save(photo)
    on_device(tmp_path / "store", CLASSIFICATION_TASKS, search.search)
    on_device(tmp_path / "store", [*CLASSIFICATION_TASKS, f"query.path={photo}", "query.top=3"], search.search)
    assert capsys.readouterr().out
    assert list((tmp_path / "outputs").rglob("*.png"))
