"""Composing and loading: every shipped file works, and what is wrong is told in one line with the nearest names."""

import os
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from sept.app.plan import plan
from sept.compose import (
    CONF,
    asked,
    check_overrides,
    completed,
    expand,
    experiment,
    known_names,
    load,
    option,
    options,
    register,
    usage,
)
from sept.config import Experiment
from sept.errors import ConfigError

GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
NAMED = {"experiment", "table"}
PATHS = {  # options that need to be told where something is
    "pool=folder": ["pool.path=/somewhere"],
    "pool=webdataset": ["pool.path=/somewhere"],
    "pool=zip": ["pool.path=/somewhere"],
    "pool=parquet": ["pool.path=/somewhere"],
    "pool=list": ["pool.path=/somewhere"],
    "task=imagefolder": ["task.path=/somewhere"],
    "task=csv": ["task.path=/somewhere"],
    "task=parquet": ["task.path=/somewhere"],
    "pool=vectors": ["pool.path=/somewhere", "query=vectors", "query.path=/elsewhere"],
    "query=vectors": ["pool=vectors", "pool.path=/somewhere", "query.path=/elsewhere"],
    "query=instance": ["task=voc"],
    "budget=auto": ["init=simcore"],
    "backbone=timm": ["backbone.name=resnet18"],
    "retriever=timm": ["retriever.backbone.name=resnet18"],
}


def composed(*overrides):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


KIND_OF = {"init=curated": "random", "selector=curated": "random"}  # options that set more than the name of a kind
CHOICES = [f"{group}={option}" for group in GROUPS if group not in NAMED for option in options(group)]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_composes_and_loads(choice):
    group, chosen = choice.split("=")
    found = experiment([choice, *PATHS.get(choice, []), *large_pool(choice)])
    assert isinstance(found, Experiment)
    if group == "init":
        assert found.initial == KIND_OF.get(choice, chosen if chosen != "pretrain" else "sept")
    elif group == "backbone":
        assert asdict(found.backbone) == option("backbone", chosen) | ({"name": "resnet18"} if chosen == "timm" else {})
    elif choice in PATHS and group in ("pool", "task"):
        assert getattr(found, group).name == "somewhere"
    else:
        assert getattr(getattr(found, group), "name", chosen) == KIND_OF.get(choice, chosen)


def large_pool(choice):
    return ["pool.images=10000000"] if choice.startswith(("budget=", "pretrain=")) else []


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_is_planned_without_its_data_and_made_of_choices_alone(name, tmp_path, monkeypatch):
    for folder in ("STORE", "DATA", "WEIGHTS"):
        monkeypatch.setenv(f"SEPT_{folder}", str(tmp_path / folder))
    assert plan(name, [experiment([f"+experiment={name}"])]).startswith(f"plan of {name}: 1 cell; nothing was run")
    assert set(yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())) == {"defaults"}


@pytest.mark.parametrize(("name", "cells"), [("quickstart", 9)])
def test_a_table_expands_to_its_cells(name, cells):
    found = expand(name)
    assert len(found) == cells
    assert all(e.table == name for e in found)


def test_a_table_is_narrowed_and_widened():
    found = expand("quickstart", ["init=sept", "seed=0,1,2", "finetune.seed=5"])
    assert [(e.initial, e.seed, e.finetune.seed) for e in found] == [("sept", seed, 5) for seed in (0, 1, 2)]


def test_a_table_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match=r"no table quickstrat; did you mean quickstart\?"):
        expand("quickstrat")


def test_a_table_that_did_not_expand_is_refused():
    with pytest.raises(ConfigError, match="did not expand into cells"):
        load(composed("+table=quickstart"), expanded=False)
    with pytest.raises(ConfigError, match="did not expand into cells"):
        experiment(["+table=quickstart"])


def top_keys(path: Path) -> set[str]:
    return set(yaml.safe_load(path.read_text())) - {"defaults"}


@pytest.mark.parametrize("group", [group for group in GROUPS if group not in NAMED])
def test_the_options_of_a_group_have_the_same_keys(group):
    kinds = defaultdict(set)  # by the recipe that a fine-tuning names
    for path in (CONF / group).glob("*.yaml"):
        recipe = re.search("/settings@_here_: (.*)", path.read_text())
        if recipe or "defaults:" not in path.read_text():
            kinds[recipe and recipe[1]].add(frozenset(top_keys(path)))
    assert all(len(keys) == 1 for keys in kinds.values())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget=5k", "budget=5k: no such option; did you mean 500k"),
        ("init=septt", "did you mean sept"),
        ("poool=folder", "poool: no such setting; did you mean pool"),
        ("+pool.imagez=1", "did you mean pool.images"),
        ("pretrain.temprature=1", "did you mean pretrain.temperature"),
        ("+table=a,b", "one table per command"),
        ("table=quickstart", "table=quickstart: write +table=quickstart; it is added to the choices"),
        ("experiment=paper", "experiment=paper: write +experiment=paper"),
        ("table=quickstrat", "table=quickstrat: no such option; did you mean quickstart"),
        ("-m=1 seed=0,1", "-m=1: write -m, by itself, for a sweep: python train.py seed=0,1"),
        ("-mseed=0,1", "-mseed=0,1: write -m, by itself"),
        ("--multi-run seed=0,1", "--multi-run: write -m, by itself"),
        ("multirun=true seed=0,1", "multirun=true: write -m, by itself"),
        ("m seed=0,1", "m: write -m, by itself"),
        ("backbone.depth=3", "An argument of the network is set with backbone.args.depth=VALUE"),
        ("retriever.backbone.depth=3", "is set with retriever.backbone.args.depth=VALUE"),
        ("init=rand_init,random selector=random,sept", "init=random and selector=sept contradict each other"),
    ],
)
def test_a_misspelt_override_is_refused_with_the_nearest_names(override, message):
    with pytest.raises(ConfigError) as refused:
        check_overrides(override.split())
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_hydra_and_models_own_is_let_through():
    check_overrides(["hydra.run.dir=x", "-m", "backbone.args.embed_dim=32", "budget=1k,2k", "seed=0,1"])
    check_overrides(["init=random", "selector=random"])
    check_overrides(["init=rand_init,pretrain", "selector=random,sept", "-m"])


def test_a_smuggled_field_is_refused_when_loading():
    with pytest.raises(ConfigError, match=r"pool\.imagez: no such setting; did you mean pool\.images"):
        load(composed("+pool.imagez=1"))
    with pytest.raises(ConfigError, match=r"pool\.imagez: no such setting; did you mean pool\.images"):
        experiment(["+pool.imagez=1"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["compute.flops=1e15"], "set exactly one"),
        (["init=random", "selector=sept"], "init=random and selector=sept contradict each other: init=random is init="),
        (["compute.epochs=null"], "set exactly one"),
        (["pretrain.queue=32"], "does not hold one batch"),
        (["budget.images=0"], "at least 1"),
        (["shot.per_class=0"], "at least 1"),
        (["pool.max_unreadable=1.5"], "is a share"),
        (["pretrain.schedule=linear"], "must be one of cosine, cosine_after_warmup, constant, step"),
        (["retriever.preprocess.crop=64"], "larger than retriever.preprocess.resize"),
        (["pool=folder"], "pool=folder needs pool.path"),
        (["task=imagefolder"], "task=imagefolder needs task.path"),
        (["init=in1k_sup", "init.weights=null"], "needs init.weights=FILE"),
        (["store.mode=write"], "must be one of reuse, read-only"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as refused:
        experiment(overrides)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["finetune=probe", "finetune.epochs=3"],
            "finetune=probe has no such setting; classify, detect, segment, segment_",
        ),
        (["selector.source=x"], "selector.source: selector=sept has no such setting; random has it"),
        (["backbone.args=foo"], "backbone.args=foo: holds settings, each by its name: write backbone.args.NAME=VALUE"),
        (["retriever.train=moby_micro"], "or an option by pretrain@retriever.train=OPTION"),
        (["seed=0,1"], "seed=0,1: several values make a sweep: add -m"),
        (["seed=range(1,3)"], "seed=range(1,3): several values make a sweep: add -m"),
        (["seed=abc"], "seed=abc: must be a whole number"),
        (["finetune.lr=abc"], "finetune.lr=abc: must be a number"),
        (["finetune.crop_scale=3"], "finetune.crop_scale=3: must be a list, [A,B]"),
        (["plan=maybe"], "plan=maybe: must be true or false"),
        (["backbone.name=null"], "backbone.name: must not be null"),
        (["+seed=1"], "seed is there already: write it once, without +"),
        (["+pool=folder"], "pool is there already: write it once, without +"),
        (["pool.path=a(b"], "pool.path=a(b: a value with blanks or signs goes between quotes"),
        (["a b"], "a b: is not KEY=VALUE"),
        (["pool.path=${nope}"], "what ${..} stands for is not there (Interpolation key 'nope' not found)"),
    ],
)
def test_what_hydra_and_omegaconf_refuse_is_told_in_plain_words(overrides, message):
    with pytest.raises(ConfigError) as refused:
        experiment(overrides)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_arguments_of_a_network_are_set_plainly_and_swept():
    e = experiment(["backbone.args.depths=[2,2]", "backbone.args.qkv_bias=false", "retriever.backbone.args.depth=2"])
    assert (e.backbone.args["depths"], e.backbone.args["qkv_bias"], e.backbone.args["embed_dim"]) == ([2, 2], False, 48)
    assert e.retriever.backbone.args["depth"] == 2
    cells = asked(["-m", "backbone=vit_micro", "backbone.args.depth=2,3", "backbone.args.qk_norm=true"]).cells
    swept = [experiment(cell, expanded=True).backbone.args for cell in cells]
    assert [(args["depth"], args["qk_norm"], args["patch_size"]) for args in swept] == [(2, True, 4), (3, True, 4)]


def test_hydra_itself_takes_arguments_of_a_network_plainly():
    e = load(composed("backbone.args.qkv_bias=false", "retriever.backbone.args.qk_norm=true"))
    assert (e.backbone.args["qkv_bias"], e.retriever.backbone.args["qk_norm"]) == (False, True)


def test_a_network_named_alone_is_timms_plain_one():
    e = experiment(["backbone.name=vit_tiny_patch16_224", "backbone.args.depth=2"])
    assert asdict(e.backbone) == {"name": "vit_tiny_patch16_224", "args": {"depth": 2}, "statistics": "timm"}
    chosen = experiment(["backbone=vit_micro", "backbone.name=vit_tiny_patch16_224"])  # the option's arguments stay
    assert chosen.backbone.args["embed_dim"] == 64
    cells = asked(["backbone.name=resnet18,resnet34", "--multirun"]).cells
    assert [asdict(experiment(cell, True).backbone) for cell in cells] == [
        {"name": name, "args": {}, "statistics": "timm"} for name in ("resnet18", "resnet34")
    ]
    assert {e.backbone.name for e in expand("quickstart", ["backbone.name=resnet18"])} == {"resnet18"}
    retriever = "retriever.backbone.name=resnet18"
    assert completed([retriever]) == [retriever, "retriever=timm"]
    assert completed([retriever, "retriever=ibot_micro"]) == [retriever, "retriever=ibot_micro"]
    assert completed([retriever, "backbone@retriever.backbone=vit_s16"])[2:] == []
    assert completed(["seed=1"]) == ["seed=1"]


@pytest.mark.parametrize(
    ("arguments", "here", "by_hydra", "cells"),
    [
        (["seed=1"], True, False, [["seed=1"]]),
        (["-m", "seed=1,2"], True, False, [["seed=1"], ["seed=2"]]),
        (["-m", "seed=1,2", "hydra/launcher=joblib"], False, True, [["seed=1"], ["seed=2"]]),
        (["hydra.run.dir=x"], True, True, [["hydra.run.dir=x"]]),
        (["--cfg", "job"], True, True, []),
        (["-m", "finetune.lr=1e-3,2e-3", "task.path='a,b'"], True, False, None),
    ],
)
def test_hydra_launches_only_what_needs_it(arguments, here, by_hydra, cells):
    found = asked(arguments)
    assert (found.here, found.by_hydra) == (here, by_hydra)
    if cells is None:
        cells = [[f"finetune.lr={lr}", "task.path='a,b'"] for lr in ("0.001", "0.002")]
    assert found.cells == cells


def test_every_known_name_is_a_setting():
    names = known_names()
    assert {
        "seed",
        "pool",
        "pool.path",
        "backbone.name",
        "selector.share",
        "retriever.train.lr",
        "hardware.threads",
    } <= set(names)
    assert len(names) == len(set(names))


def test_a_home_folder_in_quotes_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert experiment(["pool=folder", "pool.path='~/photos'"]).pool.path == "/home/ada/photos"


def test_help_says_what_each_group_is_and_its_options():
    text = usage("train.py", "Runs.")
    for group in GROUPS:
        [line] = [line for line in text.splitlines() if line.lstrip("+").startswith(f"{group}=")]
        assert line.endswith(".")
        assert set(options(group)) <= set(text.partition(line)[2].split("\n\n")[0].split())


def test_a_shell_completes_options_and_settings():
    for typed, expected in (("+table=quick", "+table=quickstart"), ("task=food", "task=food101")):
        line = f"python train.py {typed}"
        asked = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
        told = subprocess.run(
            [sys.executable, "train.py", "-sc", "query=bash"],
            cwd=CONF.parents[1],
            env=asked,
            capture_output=True,
            text=True,
        )
        assert told.stdout.split() == [expected], told.stderr
