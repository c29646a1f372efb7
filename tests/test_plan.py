"""A plan counts the cells of the paper's tables, names what is missing, and starts nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Tiny, run

from sept.app.plan import plan
from sept.compose import CONF, expand

CELLS = {  # launched and distinct, of SEPT
    "table2": (70, 70),
    "table3": (72, 48),
    "table4": (10, 10),
    "table5": (60, 60),
    "table6": (24, 16),
    "table7": (60, 27),
    "fig1b": (21, 21),
    "fig3": (24, 24),
    "fig4": (8, 8),
}


@pytest.mark.parametrize("table", [path.stem for path in sorted((CONF / "table").glob("*.yaml"))])
def test_every_table_is_planned_on_a_machine_without_its_data(table: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SEPT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SEPT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SEPT_WEIGHTS", str(tmp_path / "weights"))
    one_seed = ["seed=0"] if table.startswith("patterns_") else []  # composing takes time
    text = plan(table, expand(table, one_seed))
    if table in CELLS:
        launched, distinct = CELLS[table]
        assert text.startswith(f"plan of {table}: {launched} cells, {distinct} of them distinct; nothing was run")
        assert f"{tmp_path}" in text.partition("missing on this machine:")[2]
    else:
        assert "missing on this machine" not in text
    assert not list(tmp_path.iterdir())


EVERY = """
import sys
from sept.app.plan import plan
from sept.compose import asked, experiment, options
for table in options("table"):
    cells = asked([f"+table={table}"]).cells
    assert plan(table, [experiment(cell, expanded=True) for cell in (cells[0], cells[-1])])
print(*sys.modules)
"""


def test_plans_of_all_tables_import_nothing_that_trains(tmp_path: Path) -> None:
    elsewhere = {f"SEPT_{name}": str(tmp_path / name) for name in ("STORE", "DATA", "WEIGHTS")}
    told = subprocess.run(
        [sys.executable, "-c", EVERY],
        cwd=CONF.parent,
        env={**os.environ, **elsewhere},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {name.partition(".")[0] for name in told.stdout.split()}
    assert "sept" in imported
    assert not imported & {"torch", "torchvision", "timm", "lightning", "torchmetrics", "wandb", "faiss", "matplotlib"}


def test_a_plan_from_the_command_line_shows_what_is_cached(tiny: Tiny) -> None:
    done = run("+table=quickstart", "finetune.seed=0,7", "plan=true", store=tiny.store)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("plan of quickstart: 6 cells, 6 of them distinct")
    told = "task patterns_a: 16 classes of glyphs, images of each: 5 to train on, 3 to test on, drawn"
    assert told in done.stdout.splitlines()
    assert told in tiny.done.stderr.splitlines()  # before each run, too
    rows = {line.split()[0]: line.split()[1:4] for line in done.stdout.splitlines() if line}
    assert rows["finetune"] == ["6", "3", "3"]  # steps, cached, to do
    assert rows["pretrain"] == ["2", "2", "0"]
