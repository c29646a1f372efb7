"""New processes do not run the script that a person started."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, command

UNGUARDED = """
import sys
import sept
print("begun")
row = sept.run(sys.argv[1:])
print("done", row["init"])
"""
FEW = ["hardware.threads=2", "hardware.workers=1", "init=rand_init", "finetune=probe"]  # they draw, and read
ALL = ["hardware.threads=2", "hardware.workers=1", "hardware.devices=2"]  # they draw, embed, train and read


@pytest.mark.parametrize("new", [FEW, pytest.param(ALL, marks=pytest.mark.slow)])
def test_a_script_without_a_guard_is_run_once(new, tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    without = ("retriever", "finetune") if "finetune=probe" in new else ("retriever",)
    done = subprocess.run(
        [sys.executable, "script.py", *command(*new, without=without)[2:]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["begun", "done", "rand_init" if new is FEW else "sept"]
