"""What a step is given besides its inputs changes no file that another step reads: its key may leave it out."""

import shutil
from pathlib import Path

import pytest
from conftest import TINY, Tiny

from sept.compose import experiment
from sept.pipeline import Pipeline
from sept.runtime.hardware import resolve
from sept.store import Step, Store

READ = {"pretrain": ["backbone/model.safetensors", "backbone/config.json"], "selection": ["selection.parquet"]}


def step_of(stage: str, *overrides: str) -> Step:
    e = experiment([*TINY, *overrides])
    found = [step for step in Pipeline(e, resolve(e.hardware)).run.walk() if step.stage == stage and step.aids]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("stage", "aid", "choices"),
    [("pretrain", "task", ["init=random", "logger.knn_every=1"]), ("selection", "compact", ["index=int8"])],
)
def test_a_step_with_an_aid_leaves_the_files_of_the_step_without(stage, aid, choices, tiny: Tiny, tmp_path: Path):
    shutil.copytree(tiny.store, tmp_path / "store")  # other tests count what is in it
    store, step = Store(tmp_path / "store"), step_of(stage, *choices)
    assert aid in step.aids
    published = store.find(step)  # made without: its key is the same
    assert published is not None
    made = tmp_path / "made"
    made.mkdir()
    step.build(made, {name: store.make(each) for name, each in step.needs.items()})
    for name in READ[stage]:
        assert (made / name).read_bytes() == (published.path / name).read_bytes()


def test_every_aid_is_one_of_those_that_architecture_names():
    choices = [["init=random", "logger.knn_every=1"], ["init=sept"], ["init=sept", "index=int8"]]
    experiments = [experiment([*TINY, *each]) for each in choices]
    steps = [step for e in experiments for step in Pipeline(e, resolve(e.hardware)).run.walk()]
    assert {(step.stage, name) for step in steps for name in step.aids} == {
        ("pretrain", "task"),
        ("selection", "retriever"),
        ("selection", "compact"),
        ("pretrain", "copies"),
    }
