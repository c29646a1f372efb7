"""A table is what the store holds: nothing is computed for it, and what is missing is blank."""

import csv
import io
import json
import re
import shlex
import shutil
import statistics

import pytest
from conftest import TINY, Tiny
from conftest import run as run_command
from lines import line, run, table

from sept.compose import expand, experiment
from sept.compose.names import leaves
from sept.config import Budget, Experiment, Init
from sept.data.settings import Pool, Shot, Task
from sept.overrides import command
from sept.pipeline import Pipeline
from sept.results import CELL, choices, row
from sept.runtime.hardware import resolve
from sept.store import Step, Store
from sept.tables import COLUMNS, cells_of, rows
from sept.tables.__main__ import main
from sept.tables.labels import method_grids
from sept.tables.latex import as_latex, escape
from sept.tables.paper import PAPER, printed
from sept.tables.text import as_csv, as_markdown, as_terminal, never_raise
from sept.transfer.recipes import Classify, Detect


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
        blank = dict(zip(COLUMNS, cells_of(by[init, 4]), strict=True))
        assert {name for name, text in blank.items() if text} <= {*CELL, "annotation", "n", "seeds", "status"}
        assert (blank["n"], blank["status"]) == ("0", "missing")
    assert (by["rand_init", 5]["budget"], by["rand_init", 5]["pool"], by["sept", 5]["budget"]) == (None, None, 32)
    assert by["rand_init", 5]["flops"] == manifest(tiny, "rand_init")["facts"]["flops"]
    assert by["sept", 5]["flops"] > by["rand_init", 5]["flops"]


def test_a_cell_that_a_sweep_names_often_counts_once(settings):
    [line] = rows(expand("quickstart", [*settings, "init=rand_init", "finetune.seed=0,0", "budget.images=32,64"]))
    assert (line["n"], line.get("std")) == (1, None)


def test_cells_that_differ_in_more_than_seeds_are_never_averaged(settings):
    lines = rows(expand("quickstart", [*settings, "init=rand_init", "finetune.seed=0", "finetune.epochs=3,4"]))
    assert [line["n"] for line in lines] == [1, 0]
    assert [line["variant"] for line in lines] == ["finetune.epochs=3", "finetune.epochs=4"]


def test_the_spread_of_a_row_is_over_its_seeds(settings, tiny):
    """Two fine-tunings of each of two seeds are two values."""
    sweep = ["init=rand_init", "seed=0,1", "finetune.seed=0,1"]
    made = run_command("+table=quickstart", *sweep, store=tiny.store)
    assert made.returncode == 0, made.stderr
    [found] = rows(expand("quickstart", [*settings, *sweep]))
    first, second = ([run["top1"] for run in found["runs"] if run["seed"] == seed] for seed in (0, 1))
    assert (found["n"], found["seeds"], len(first), len(second)) == (4, 2, 2, 2)
    means = statistics.fmean(first), statistics.fmean(second)
    assert (found["mean"], found["std"]) == pytest.approx((statistics.fmean(means), statistics.stdev(means)))
    assert "2 seeds, 4 fine-tunings" in made.stdout


def test_a_comparison_says_how_many_of_its_runs_are_missing(settings):
    [line] = rows(expand("quickstart", [*settings, "init=sept", "finetune.seed=0,9,10"]))
    assert (line["n"], line["status"]) == (1, "2 of 3 missing")


def test_a_cell_whose_data_is_not_here_is_missing_with_the_reason_beside_the_papers_number(settings, tmp_path):
    official = ["task=flowers102", f"task.path={tmp_path}", "init=rand_init,sept", "finetune.seed=0,1"]
    lines = rows(expand("quickstart", [*settings, *official]))
    assert [(line["init"], line["n"], line["paper"], line["status"]) for line in lines] == [
        ("rand_init", 0, 19.9, "missing"),
        ("sept", 0, None, "missing"),
    ]
    assert "flowers" in lines[0]["reason"]
    assert "missing: " in as_terminal({"t": lines})
    assert "paper" in as_terminal({"t": lines})


def test_a_damaged_artefact_costs_its_own_cell_only(settings, tiny, tmp_path):
    shutil.copytree(tiny.store, tmp_path / "store")
    [folder] = (tmp_path / "store" / "finetune").glob("patterns_a-sept-*")
    (folder / "manifest.json").write_text("{")
    cells = expand("quickstart", [*settings, f"store.root={tmp_path / 'store'}", "finetune.seed=0"])
    assert [(line["init"], line["n"]) for line in rows(cells)] == [("rand_init", 1), ("random", 1), ("sept", 0)]


def test_a_row_tells_its_status_its_images_and_its_keys(settings, tiny):
    store = Store(tiny.store, mode="read-only")
    [done, missing] = expand("quickstart", [*settings, "init=sept", "finetune.seed=0,9"])
    found = row(done, Pipeline(done, resolve(done.hardware)).run, store)
    assert found is not None
    assert (found["status"], found["images_seen"], found["seed"]) == ("done", 64, 0)
    assert found["keys"].keys() >= {"pool", "retriever", "features", "selection", "pretrain", "finetune"}
    assert row(missing, Pipeline(missing, resolve(missing.hardware)).run, store) is None


def test_a_row_lists_its_artefacts_and_what_is_made_once_is_told_apart(settings, tiny):
    """The retriever's own images are selected and packed too: that work is the pool's, not the run's."""
    [cell] = expand("quickstart", [*settings, "init=sept", "finetune.seed=0"])
    found = row(cell, Pipeline(cell, resolve(cell.hardware)).run, Store(tiny.store, mode="read-only"))
    assert found is not None
    kinds = [(each["stage"], each["shared"]) for each in found["artefacts"]]
    assert kinds.count(("selection", True)) == kinds.count(("selection", False)) == 1
    assert {stage for stage, shared in kinds if not shared} == {
        "fingerprints",
        "queries",
        "selection",
        "subset",
        "copies",
        "pretrain",
        "finetune",
    }
    for each in found["artefacts"]:
        made = json.loads((tiny.store / each["path"] / "manifest.json").read_bytes())
        assert (made["key"], made["wall_s"]) == (each["key"], each["wall_s"])
    assert found["flops"] == sum(each["flops"] for each in found["artefacts"] if not each["shared"])
    assert found["shared_flops"] == sum(each["flops"] for each in found["artefacts"] if each["shared"])
    assert found["pool_images"] == 400
    assert (found["metric"], found["score"]) == ("top1", found["top1"])
    assert found["ap"] is None


def test_a_detector_is_a_row_with_its_own_measures(tmp_path):
    def build(folder, inputs):
        return {"metric": "ap50", "score": 61.5, "ap": 33.0, "ap50": 61.5, "ap75": 30.0, "flops": 7.0}

    store, step = Store(tmp_path / "store"), Step("detect", 1, {}, {}, build)
    store.make(step)
    e = Experiment(init=Init("random"), task=Task("voc", "voc", images=1000), finetune=Detect())
    found = row(e, step, store)
    assert found is not None
    assert (found["metric"], found["score"], found["ap"], found["ap75"]) == ("ap50", 61.5, 33.0, 30.0)
    assert (found["top1"], found["frozen_top1"], found["shot"]) == (None, None, "n1000")


@pytest.mark.parametrize(
    ("shot", "named"), [(Shot(5), 5), (Shot(None), "full"), (Shot(None, 0.5), "50%"), (Shot(None, 0.125), "12.5%")]
)
def test_shots_are_named(shot, named):
    e = Experiment(shot=shot, task=Task("food101", "food101"), finetune=Classify(), budget=Budget(3), pool=Pool("p"))
    e.selector.name = "sept"
    assert choices(e)["shot"] == named


def scores() -> list[dict]:
    return table(
        line("random", [10.0, 12.0]),
        line("sept", [20.0, 21.0]),
        line("rand_init", [], task="x & y_%,|#", paper=3.5),
        line("sept", [30.0], shot=10),
    )


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@sum", "\t=1"])
def test_text_in_csv_is_never_a_formula_of_a_spreadsheet(text):
    assert never_raise(text) == f"'{text}"
    assert [never_raise(number) for number in ("-1.50", "+2", "-1e-05", "80.1", "a=b")] == [
        *("-1.50", "+2", "-1e-05", "80.1", "a=b")
    ]


def test_csv_is_what_the_rows_say():
    lines = scores()
    parsed = list(csv.DictReader(io.StringIO(as_csv({"t": lines, "u": lines[:1]}))))
    assert [each["table"] for each in parsed] == ["t"] * 4 + ["u"]
    assert [(each["init"], each["mean"], each["std"], each["n"]) for each in parsed[:4]] == [
        ("random", "11.00", "1.41", "2"),
        ("sept", "20.50", "0.71", "2"),
        ("rand_init", "", "", "0"),
        ("sept", "30.00", "", "1"),
    ]
    assert (parsed[2]["task"], parsed[2]["paper"]) == ("x & y_%,|#", "3.5")
    assert (parsed[1]["gain"], parsed[1]["gain_low"], parsed[1]["within_noise"]) == ("9.50", "3.15", "no")
    assert parsed[0]["gain"] == parsed[3]["gain"] == ""


def test_markdown_is_a_table_and_the_differences():
    text = as_markdown({"t": scores()})
    first, second = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len({re.sub(r"\\\|", "", row).count("|") for row in first.splitlines()}) == 1
    assert "| 20.50 ± 0.71 |" in first
    assert "+9.50 [+3.15, +15.85]" in first
    assert "| sept - random | a, 5 shots | +9.50 | [+3.15, +15.85] | higher | 2 seeds |" in second
    assert "In all rows to which it applies: budget 10, query image, retriever r, pool p." in text


def test_the_terminal_leaves_out_what_nobody_knows_and_says_noise():
    lines = table(line("random", [10.0, 12.0]), line("sept", [20.0, 9.0]))
    text = as_terminal({"t": lines})
    assert "t: top-1 on the test set in %, mean ± standard deviation" in text
    assert text.count("within noise") == 2  # of the row, and of the difference
    assert not re.search("paper|status|AP50|variant", text)
    assert "one run each" in as_terminal({"t": [line("random", [1.0]), line("sept", [2.0])]})


def of_one_seed() -> list[dict]:
    """Three fine-tunings of a seed each, as the quickstart makes them."""
    lines = []
    for init, scores in (("random", [20.0, 21.0, 22.0]), ("sept", [48.0, 49.0, 50.5])):
        lines.append(line(init, [], [run(score, 0, again) for again, score in enumerate(scores)]))
    return table(*lines)


def test_a_spread_over_finetunings_of_one_pretraining_is_told_beside_the_number_and_what_to_run_below():
    lines = of_one_seed()
    seeds = "For seeds of everything: python train.py +table=t seed=0,1,2"
    terminal, markdown = as_terminal({"t": lines}), as_markdown({"t": lines})
    assert markdown.count("| 49.17 ± 1.26 | 3 fine-tunings |") == 1
    assert "| higher, for this seed | 3 fine-tunings |" in markdown
    for text in (terminal, markdown, as_latex({"t": lines})):
        assert text.count("Pre-trainings vary more.") == 1
        assert seeds in text.replace("\\", "")
    assert any(told.startswith("±") and seeds in told for told in terminal.splitlines())  # one line, to be copied from
    assert "over 3 fine-tunings; the paper's" in as_latex({"t": lines})
    assert "vary more" not in as_terminal({"t": scores()}) + as_markdown({"t": scores()})
    assert "2 seeds" in as_terminal({"t": scores()})


def test_seeds_come_first_and_finetunings_within():
    runs = [run(10.0 * seed + again, seed, again) for seed in range(3) for again in range(2)]
    text = as_markdown({"t": [line("sept", [], runs)]})
    assert "| 3 seeds, 6 fine-tunings |" in text
    assert "Fine-tunings of one seed are averaged first; ± and intervals are over seeds." in text
    assert as_latex({"t": [line("sept", [], runs), line("random", [1.0])]}).count(r"\,{\scriptsize 1 run}") == 1


def test_what_is_measured_is_named():
    assert "AP50 on the test set" in as_terminal({"t": [line("sept", [1.0], metric="ap50")]})
    mixed = as_terminal({"t": [line("sept", [1.0], metric="ap50"), line("sept", [1.0], task="b")]})
    assert "score on the test set" in mixed
    assert "measure" in mixed


def test_latex_is_balanced_and_escaped():
    text = as_latex({"table_9": scores()})
    assert text.count("{") == text.count("}")
    assert re.findall(r"\\(begin|end)\{(\w+)\}", text) == [
        ("begin", "table"),
        ("begin", "tabular"),
        ("end", "tabular"),
        ("end", "table"),
    ]
    columns = len(re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)[0])
    body = text.split("midrule")[1].split("\\bottomrule")[0]
    for entries in filter(None, body.strip().splitlines()):
        assert len(re.split(r"(?<!\\)&", entries)) == columns
        assert entries.endswith(r" \\")
    assert r"$20.50 \pm 0.71$" in text
    assert "-- (3.50)" in text
    assert r"x \& y\_\%,|\#" in text
    assert not re.search(r"(?<!\\)[#%&_](?!\n)", re.sub(r"(?<!\\)&| %$|\{%$", "", text, flags=re.MULTILINE))


def test_latex_special_characters_are_printed_as_they_are():
    assert escape("a_b{c}\\~^$ ±") == r"a\_b\{c\}\textbackslash{}\textasciitilde{}\textasciicircum{}\$ $\pm$"


S16 = {"query": "image", "retriever": "ibot_vit_s16", "pool": "sept155m"}


@pytest.mark.parametrize(
    ("task", "shot", "init", "budget", "rest", "value"),
    [
        ("flowers102", 5, "rand_init", None, {}, 19.9),
        ("flowers102", 5, "in1k_sup", None, {}, 89.17),
        ("flowers102", 5, "random", 100_000, {"pool": "sept155m"}, 73.77),
        ("flowers102", 5, "sept", 100_000, S16, 98.73),
        ("flowers102", 5, "sept", 99, S16, None),
        ("flowers102", 5, "union_topk", 100_000, S16, None),
        ("flowers102", 5, "sept", 100_000, S16 | {"retriever": "ibot_micro"}, None),
        ("inat_m1k", 10, "sept", 1_000_000, S16, 48.38),
        ("food101", 5, "sept", 100_000, S16 | {"pool": "in22k"}, 49.68),
        ("food101", 5, "sept", 100_000, S16 | {"pool": "in22k", "retriever": "ibot_vit_b16"}, 52.25),
        ("food101", 10, "sept", 100_000, S16 | {"pool": "in22k", "retriever": "ibot_vit_l16_in22k"}, 64.66),
        ("food101", 5, "random", 100_000, {"pool": "yfcc100m"}, 21.69),
        ("food101", "50%", "sept", 500_000, S16, 91.74),
        ("food101", "full", "rand_init", None, {}, 77.4),
        ("food101", "full", "sept", 1_000_000, S16, 93.97),
        ("voc", "n1000", "sept", 300_000, S16 | {"query": "instance"}, 63.3),
        ("voc", "n1000", "in1k_ssl", None, {}, 67.8),
        ("in1k", "full", "retriever", None, {}, None),
    ],
)
def test_the_number_of_the_paper_stands_beside_ours_where_it_has_one(task, shot, init, budget, rest, value):
    named = dict.fromkeys(CELL) | {"task": task, "shot": shot, "init": init, "budget": budget} | rest
    assert printed(named) == value
    assert printed(named, "resnet50") is None
    trained = named | {"method": "moby_swin_t", "compute": "300 epochs"}
    assert printed(trained, "swin_tiny_patch4_window7_224") == value
    for other in ({"method": "simclr_swin_t"}, {"compute": "8e+18 FLOPs"}):
        assert printed(trained | other) is None


def test_several_methods_stand_in_a_grid_with_what_else_varies():
    data = {"in1k": (10.0, 20.0), "coco": (5.0, 8.0)}
    lines = [line("rand_init", [1.0])]
    for method, place in (("byol", 0), ("mae", 1)):
        lines += [line("random", [scores[place]], method=method, pool=pool) for pool, scores in data.items()]
    [grid] = method_grids(lines)
    assert grid.heads == ["method", "random, pool in1k", "random, pool coco"]
    assert grid.rows == (("byol", "10.00", "5.00"), ("mae", "20.00", "8.00"), ("rand_init", "1.00", ""))
    assert "| mae | 20.00 | 8.00 |" in as_markdown({"t": lines})
    assert [*method_grids(lines[:3])] == []  # one method
    assert [*method_grids([each for each in lines if each["pool"] != "coco"])] == []  # one column


def test_the_number_of_a_method_on_a_data_set_is_not_that_of_another_length_or_network():
    given = {"task": "ade20k", "shot": "n20210", "init": "random", "pool": "in1k", "budget": 1_281_167}
    named = dict.fromkeys(CELL) | given | {"method": "byol_vit_b16", "compute": "384,000,000 images"}
    assert printed(named, "vit_base_patch16_224") == 41.7
    assert printed(named, "vit_large_patch16_224") is None
    assert printed(named | {"compute": "2.156e+18 FLOPs"}) is None


def test_every_number_of_the_papers_tables_can_be_met():
    from sept.tables.paper import _index

    with PAPER.open(newline="") as file:
        kept = [each for each in csv.DictReader(file) if each["init"] != "retriever"]
    assert {float(each["value"]) for each in kept} == set(_index().values())


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("seed=3", "finetune.seed=7", "init=random", "budget=1k", "compute.epochs=2"),
        ("task=food101", "task.path='/a b/ü'", "pool=sept155m", "pretrain=moby_swin_t", "finetune=classify"),
        ("init=in1k_ssl", "init.weights=/weights/moby.pth", "shot=half", "pretrain=moby_swin_t"),
        (
            "pool=folder",
            "pool.path='/it\\'s,(1)'",
            "leak=remove",
            "pool.without=[]",
            "+backbone.args.a=[1,2.5,x]",
        ),
        ("pool=sept155m", "pool.without=[intern]", "retriever=ibot_vit_b16", "retriever.weights=/w"),
        ("~backbone.args.depths", "pool.sources={}", "retriever.backbone.name='null'"),
    ],
)
def test_the_command_of_a_run_composes_to_the_same_experiment(given):
    """By itself, without the table; a shell splits it as shlex does."""
    [cell] = expand("quickstart", ["init=sept", "finetune.seed=0", *given])
    text = command(cell)
    program, script, *overrides = shlex.split(text)
    assert (program, script) == ("python", "train.py")
    [again] = expand("quickstart", ["init=sept", "finetune.seed=0", *overrides])
    assert leaves(again) == leaves(cell)
    assert len(overrides) <= 12, "options say it shortly"


def test_a_table_that_is_not_there_is_refused_in_one_line(capsys):
    assert main(["quickstrat"]) == 78
    assert capsys.readouterr().err.startswith("there is no table quickstrat; did you mean quickstart?")
    assert main(["quickstart", "budget=3k"]) == 78
    assert main(["quickstart", "seed=abc"]) == 78
    assert main(["seed=1"]) == 78
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.parametrize("form", [["--csv"], ["--markdown"]])
def test_a_form_may_stand_anywhere(form, tmp_path, capsys):
    main(["quickstart", *form, f"store.root={tmp_path}", "seed=0"])
    there = capsys.readouterr().out
    assert main([*form, "quickstart", f"store.root={tmp_path}", "seed=0"]) == 0
    assert capsys.readouterr().out == there


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("quickstart -m", "-m: leave it out; a table is read for all values that are given"),
        ("--multirun quickstart", "--multirun: leave it out;"),
        ("table=quickstart seed=0", "table=quickstart: write python -m sept.tables quickstart"),
        ("+table=quickstart", "+table=quickstart: write python -m sept.tables quickstart"),
    ],
)
def test_a_command_line_for_training_is_told_how_a_table_is_read(arguments, told, capsys):
    assert main(arguments.split()) == 78
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(told)


def test_several_tables_and_forms_come_from_one_command(settings, capsys):
    assert main(["quickstart", "patterns_table3", *settings, "seed=0", "budget=2k", "finetune.seed=0", "--csv"]) == 0
    parsed = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(each["table"], each["n"]) for each in parsed] == [("quickstart", "1")] * 3 + [("patterns_table3", "1")] * 2
    assert main(["quickstart", *settings, "init=sept", "finetune.seed=0", "--latex"]) == 0
    assert r"\toprule" in capsys.readouterr().out


def test_a_backbone_of_an_option_is_told_by_the_option(tmp_path):
    chosen = ["init=random", f"store.root={tmp_path}"]
    cells = [experiment([*chosen, f"backbone={name}"]) for name in ("resnet_micro", "vit_micro")]
    own = experiment([*chosen, "backbone=resnet_micro", "backbone.args.layers=[1,1,1,2]"])
    told = [line["variant"] for line in rows([*cells, own])]
    assert told[:2] == ["backbone=resnet_micro", "backbone=vit_micro"]
    assert "backbone.args.layers=[1, 1, 1, 2]" in told[2]
