"""A table is what the store holds: nothing is computed for it, and what is missing is blank."""

import csv
import io
import json
import statistics

import pytest
from conftest import TINY, Tiny

from sept import tables
from sept.compose import expand
from sept.machine import resolve
from sept.pipeline import Pipeline
from sept.results import CELL, row
from sept.store import Store
from sept.tables import _paper, as_csv, as_markdown, as_terminal, cells_of, differences, main, rows


@pytest.fixture
def settings(tiny: Tiny) -> list[str]:
    return [*TINY, f"store.root={tiny.store}"]


def manifest(tiny: Tiny, init: str) -> dict:
    return json.loads((tiny.folder("finetune", f"patterns_a-{init}-seed0.0") / "manifest.json").read_bytes())


def test_rows_hold_what_the_manifests_say_and_nothing_where_nothing_is(settings, tiny):
    before = sorted(tiny.store.rglob("*"))
    lines = rows(expand("quickstart", [*settings, "init=rand_init,sept", "shot.per_class=5,4", "finetune.seed=0,9"]))
    assert sorted(tiny.store.rglob("*")) == before
    by = {(line["init"], line["shot"]): line for line in lines}
    assert by.keys() == {("rand_init", 5), ("rand_init", 4), ("sept", 5), ("sept", 4)}
    for init in ("rand_init", "sept"):
        facts = manifest(tiny, init)["facts"]
        line = by[init, 5]
        assert (line["n"], line["mean"], line["frozen_mean"]) == (1, facts["top1"], facts["frozen_top1"])
        assert "std" not in line
        assert by[init, 4]["n"] == 0
        assert set(cells_of(by[init, 4])[len(CELL) + 1 :]) == {""}
    assert (by["rand_init", 5]["budget"], by["rand_init", 5]["pool"], by["sept", 5]["budget"]) == (None, None, 32)
    assert by["rand_init", 5]["flops"] == manifest(tiny, "rand_init")["facts"]["flops"]
    assert by["sept", 5]["flops"] > by["rand_init", 5]["flops"]


def test_a_cell_that_a_sweep_names_often_counts_once(settings):
    [line] = rows(expand("quickstart", [*settings, "init=rand_init", "finetune.seed=0,0", "budget.images=32,64"]))
    assert (line["n"], line.get("std")) == (1, None)


def test_cells_that_differ_in_more_than_seeds_are_never_averaged(settings):
    lines = rows(expand("quickstart", [*settings, "init=rand_init", "finetune.seed=0", "finetune.epochs=3,4"]))
    assert [line["n"] for line in lines] == [1, 0]


def test_a_row_tells_its_status_its_images_and_its_keys(settings, tiny):
    store = Store(tiny.store, mode="read-only")
    [done, missing] = expand("quickstart", [*settings, "init=sept", "finetune.seed=0,9"])
    found = row(done, Pipeline(done, resolve(done.hardware)).run(), store)
    assert found is not None
    assert (found["status"], found["images_seen"], found["seed"]) == ("done", 64, 0)
    assert found["keys"].keys() >= {"pool", "retriever", "features", "selection", "pretrain", "finetune"}
    assert row(missing, Pipeline(missing, resolve(missing.hardware)).run(), store) is None


def line(init: str, values: list[float], **rest) -> dict:
    named = dict.fromkeys(CELL) | {"task": "a", "shot": 5, "init": init, "budget": 10, "pool": "p"} | rest
    spread = {"std": statistics.stdev(values)} if len(values) > 1 else {}
    return named | {"n": len(values), "mean": statistics.fmean(values)} | spread


def test_the_gap_between_sept_and_random_comes_with_its_standard_error():
    lines = [line("random", [10, 12, 14]), line("sept", [20, 20, 26]), line("sept", [1, 2], budget=20)]
    assert differences(lines) == ["sept - random on a, 5 shots: +10.00, standard error 2.31"]
    assert differences([line("random", [10]), line("sept", [20, 20])]) == []


def test_forms():
    lines = [line("random", [10, 12]), {**dict.fromkeys(CELL), "init": "sept", "task": "a,b", "n": 0}]
    parsed = list(csv.DictReader(io.StringIO(as_csv("t", lines))))
    assert [(each["init"], each["mean"], each["std"]) for each in parsed] == [
        ("random", "11.00", "1.41"),
        ("sept", "", ""),
    ]
    assert parsed[1]["task"] == "a,b"
    markdown = as_markdown("t", lines[:1]).splitlines()
    assert {row.count("|") for row in markdown} == {len(tables.COLUMNS) + 1}
    terminal = as_terminal("t", lines)
    assert "11.00" in terminal
    assert "paper" not in terminal  # nothing is known in that column


@pytest.mark.parametrize(
    ("named", "value"),
    [
        (("flowers102", 5, "rand_init", None, None, None, None), 19.9),
        (("flowers102", 5, "random", 100_000, None, None, "sept155m"), 73.77),
        (("flowers102", 5, "sept", 100_000, "image", "ibot_vit_s16", "sept155m"), 98.73),
        (("flowers102", 5, "sept", 100_000, "image", "ibot_micro", "sept155m"), None),
        (("flowers102", 5, "sept", 99, "image", "ibot_vit_s16", "sept155m"), None),
        (("patterns_a", 5, "sept", 2000, "image", "ibot_micro", "patterns"), None),
    ],
)
def test_the_number_of_the_paper_stands_beside_ours_where_it_has_one(named, value):
    assert _paper(named) == value


def test_a_table_that_is_not_there_is_refused_in_one_line(capsys):
    assert main(["quickstrat"]) == 78
    assert capsys.readouterr().err == "there is no table quickstrat; known are patterns, quickstart\n"
    assert main(["quickstart", "budget=3k"]) == 78
    assert main(["quickstart", "seed=abc"]) == 78
    assert len(capsys.readouterr().err.splitlines()) == 2
