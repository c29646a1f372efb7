"""A plan counts the cells of the paper's tables, names what is missing, and starts nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Tiny, run

from sept.app.costs import Total, table
from sept.app.plan import plan
from sept.compose import CONF, asked, expand, experiment
from sept.costs.settings import Carbon
from sept.runtime.hardware import Runtime
from sept.store import Step

CELLS = {  # launched and distinct, of SEPT; and those of methods at equal compute; of what they are narrowed to
    "table2": (70, 70),
    "table3": (24, 16),
    "table4": (10, 10),
    "table5": (20, 20),
    "table6": (24, 16),
    "table7": (20, 9),
    "fig1b": (21, 21),
    "fig3": (24, 24),
    "fig4": (8, 8),
    "flops_datasets": (12, 12),
    "flops_pareto": (10, 10),
    "flops_sept": (30, 30),
}
NARROWED = {  # composing takes time
    "table3": ["task=food101"],
    "table5": ["task=food101"],
    "table7": ["task=voc"],
    "flops_pareto": ["compute=flops_2e18"],
    "flops_sept": ["compute=flops_2e18"],
}
LAST = 12  # cells of a table of ours


@pytest.mark.parametrize("name", [path.stem for path in sorted((CONF / "table").glob("*.yaml"))])
def test_every_table_is_planned_on_a_machine_without_its_data(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SEPT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SEPT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SEPT_WEIGHTS", str(tmp_path / "weights"))
    if name in CELLS:
        text = plan(name, expand(name, NARROWED.get(name, [])))
        launched, distinct = CELLS[name]
        assert text.startswith(f"plan of {name}: {launched} cells, {distinct} of them distinct; nothing was run")
        assert f"{tmp_path}" in text.partition("missing on this machine:")[2]
    else:
        text = plan(name, [experiment(cell, expanded=True) for cell in asked([f"+table={name}"]).cells[-LAST:]])
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
        cwd=CONF.parents[1],
        env={**os.environ, **elsewhere},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {name.partition(".")[0] for name in told.stdout.split()}
    assert "sept" in imported
    assert not imported & {"torch", "torchvision", "timm", "lightning", "torchmetrics", "wandb", "faiss", "matplotlib"}


def costs(flops: float, images: float, accelerator: str, cores: int = 1) -> list[dict[str, str]]:
    """The plan's table of one step that is to be made, as read by a person: each row by the titles of the columns."""
    total = Total()
    total.add(Step("pretrain", 1, {}, {}, dict, estimate={"flops": flops, "images": images}), cached=False)
    lines = table({"pretrain": total}, Runtime(accelerator=accelerator, threads=cores), Carbon())
    columns = [(found[0], found.end()) for found in re.finditer(r"\S+(?: \S+)*", lines[0])]
    cut = [*zip([0, *(end for _, end in columns)], columns, strict=False)]
    rows = [line for line in lines if line.startswith(("pretrain", "total"))]
    return [{title: row[start:end].strip() for start, (title, end) in cut} for row in rows]


def test_a_plan_without_a_gpu_estimates_the_time_here():
    quickstart = 1.23e13, 2e5
    row = costs(*quickstart, "cpu", cores=2)[-1]
    assert row["time here"] == "6.8 min"  # README: 6.6
    assert not row.keys() & {"GPU-hours", "kWh"}  # 0.0 would say nothing
    assert costs(*quickstart, "cpu")[-1]["time here"] == "13.7 min"
    assert costs(*quickstart, "cuda")[-1].keys() >= {"GPU-hours", "kWh"}
    assert "time here" not in costs(*quickstart, "cuda")[-1]


def test_large_work_is_told_in_time_here_and_in_time_on_a_gpu():
    row = costs(2.15e18, 3e7, "cpu", cores=2)[-1]
    assert (row["time here"], row["GPU-hours"], row["kWh"]) == ("207.4 days", "5.4", "3.4")
    assert [costs(flops, 1, "cpu")[0]["time here"] for flops in (6e8, 6e11, 3.6e13, 3.6e14)] == [
        *("< 1 s", "10 s", "10.0 min", "1.7 h"),
    ]


def test_a_plan_from_the_command_line_shows_what_is_cached(tiny: Tiny) -> None:
    done = run("+table=quickstart", "finetune.seed=0,7", "plan=true", store=tiny.store)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("plan of quickstart: 6 cells, 6 of them distinct")
    assert re.search(r"FLOPs +time here +disk\n", done.stdout)
    assert "time here: 1 core with nothing else to do, assumed at 1.5e+10 FLOP/s" in done.stdout
    told = "task patterns_a: 16 classes of glyphs, images of each: 5 to train on, 3 to test on, drawn"
    assert told in done.stdout.splitlines()
    assert told in tiny.done.stderr.splitlines()  # before each run, too
    rows = {line.split()[0]: line.split()[1:4] for line in done.stdout.splitlines() if line}
    assert rows["finetune"] == ["6", "3", "3"]  # steps, cached, to do
    assert rows["pretrain"] == ["2", "2", "0"]
