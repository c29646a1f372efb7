"""New processes do not run the script that a person started."""

import os
import subprocess
import sys

from conftest import ROOT, command

UNGUARDED = """
import sys
import sept
print("begun")
row = sept.run(sys.argv[1:])
print("done", row["init"])
"""
NEW = [
    "hardware.threads=2",
    "hardware.devices=2",
    "hardware.workers=1",
    "init=random",
    "finetune=probe",
]  # of each kind: they draw, train, read


def test_a_script_without_a_guard_is_run_once(tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, "script.py", *command(*NEW, without=("retriever", "finetune"))[2:]],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["begun", "done", "random"]
