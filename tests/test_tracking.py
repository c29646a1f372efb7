"""W&B beside the curves that are always kept: offline without a key, and never able to stop or change a training."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Tiny, command, environment

from sept.config import Logger
from sept.machine import no_loggers
from sept.tracking import _has_key, log_table, loggers


def fine_tune(tiny: Tiny, folder: Path) -> subprocess.Popen[str]:
    """Fine-tuning of random weights with W&B, without a key, in `folder`."""
    (folder / "store").mkdir(parents=True)
    shutil.copy(tiny.store / "store.json", folder / "store")
    shutil.copytree(tiny.store / "task", folder / "store" / "task")
    known = {name: value for name, value in environment(folder / "store").items() if not name.startswith("WANDB_")}
    return subprocess.Popen(
        command("init=rand_init", "logger=wandb"),
        env={**known, "HOME": str(folder)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_file(folder: Path) -> Path | None:
    return next(folder.glob("wandb/offline-run-*/run-finetune-*.wandb"), None)


def classifier(store: Path) -> bytes:
    [path] = store.glob("finetune/*rand_init*/classifier.safetensors")
    return path.read_bytes()


def test_without_a_key_the_run_is_on_disk_to_be_synced_later(tiny, tmp_path):
    process = fine_tune(tiny, tmp_path / "a")
    told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    found = run_file(tmp_path / "a")
    assert found is not None
    content = found.read_bytes()
    assert all(name in content for name in (b"top1", b"loss", b"layer_decay"))
    assert classifier(tmp_path / "a" / "store") == classifier(tiny.store)


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the service of W&B by /proc")
def test_when_the_service_of_wandb_dies_training_goes_on(tiny, tmp_path):
    process = fine_tune(tiny, tmp_path / "a")
    deadline = time.monotonic() + 60
    while run_file(tmp_path / "a") is None:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"wandb" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    row, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert row.startswith("top-1")
    assert "going on without it" in told
    assert classifier(tmp_path / "a" / "store") == classifier(tiny.store)


def test_without_wandb_there_is_a_warning_and_no_logger(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert loggers(Logger(name="wandb"))("finetune-0", {}) == []
    assert "wandb is not available, going on without it" in caplog.text


def test_csv_needs_no_further_logger():
    assert loggers(Logger(name="csv")) is no_loggers


@pytest.mark.parametrize(
    ("key", "netrc", "expected"),
    [
        ("", "", False),
        ("abc", "", True),
        ("", "machine api.wandb.ai login user password abc", True),
        ("", "machine elsewhere login user password abc", False),
        ("", "no netrc file at all", False),
    ],
)
def test_a_key_is_found_where_wandb_login_puts_it(key, netrc, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", key)
    (tmp_path / ".netrc").write_text(netrc)
    (tmp_path / ".netrc").chmod(0o600)
    assert _has_key() is expected


def test_a_table_is_on_disk_to_be_synced_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    log_table(Logger(name="wandb", mode="offline"), "quickstart", ["init", "mean"], [["random", 26.5], ["sept", None]])
    [table] = tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")
    held = json.loads(table.read_text())
    assert (held["columns"], held["data"]) == (["init", "mean"], [["random", 26.5], ["sept", None]])


def test_a_table_that_wandb_refuses_stops_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    log_table(Logger(name="wandb", mode="offline"), "a/name that is no id", ["init"], [["random"]])
    assert "wandb is not available, the table is not sent" in caplog.text
