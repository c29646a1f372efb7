"""Nonsense on the command line: it is refused in one line, or every stage takes a step with it."""

import os
from collections import Counter
from pathlib import Path

import pytest
from mutations import WORLDS, mutations

from sept import capability
from sept.app.plan import plan
from sept.compose import check_hydra, check_overrides, experiment
from sept.config import Experiment
from sept.errors import SeptError
from sept.pipeline import Pipeline
from sept.runtime.hardware import Runtime, resolve
from sept.store import Store
from sept.training.learner import Learner

PLAIN = {"workers": 0, "devices": 1, "threads": 1, "compile": False, "accelerator": "cpu", "chunk": None}


def accepted(overrides: list[str]) -> Experiment:
    """The experiment that a command line is, as `train.py` accepts it before any work. Raises what it refuses with."""
    check_overrides(overrides)
    check_hydra(overrides)
    e = experiment(overrides)
    plan("this run", [e])
    capability.require(e)
    assert Pipeline(e, resolve(e.hardware)).run.key
    return e


@pytest.fixture
def one_step(monkeypatch):
    """Trainings end after their first step."""
    started = Learner.__init__

    def begun(self, *, seed: int, steps: int) -> None:
        started(self, seed=seed, steps=min(steps, 1))

    monkeypatch.setattr(Learner, "__init__", begun)


def outcomes(count: int, seed: int, folder: Path) -> tuple[Counter, list[str]]:
    """How many mutations were accepted and refused, and a line for each fault."""
    store = str(folder / "store")
    worlds = {name: experiment([text.replace("STORE", store) for text in world]) for name, world in WORLDS.items()}
    counts: Counter = Counter()
    faults: list[str] = []
    for world, changed in mutations(count, seed, worlds):
        overrides = [text.replace("STORE", store) for text in [*WORLDS[world], *changed]]
        told = f"{world} {changed}"
        try:
            e = accepted(overrides)
        except SeptError as refusal:
            counts["refused"] += 1
            print("refused", told, str(refusal)[:150], flush=True)
            if "\n" in str(refusal):
                faults.append(f"{told}: more than a line: {refusal}")
            continue
        except Exception as error:
            faults.append(f"{told}: before any work {type(error).__name__}: {error}")
            print("FAULT", faults[-1], flush=True)
            continue
        counts["accepted"] += 1
        print("accepted", told, flush=True)
        try:
            work(e, Path(store))
        except Exception as error:
            faults.append(f"{told}: a stage {type(error).__name__}: {error}")
            print("FAULT", faults[-1], flush=True)
    return counts, faults


def work(e: Experiment, store: Path) -> None:
    """Every stage, on one CPU core of this process, whatever the machine was said to be."""
    e.engine.name = "local"
    precision = resolve(e.hardware).precision
    runtime = Runtime(**PLAIN, precision=precision, search_bytes=e.hardware.search_mib * 2**20)
    Store(store).make(Pipeline(e, runtime).run)


def test_what_is_accepted_takes_a_step_and_what_is_not_is_told_in_a_line(one_step, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts, faults = outcomes(12, 0, tmp_path)
    assert not faults, "\n".join(faults)
    assert counts["refused"] >= 3


@pytest.mark.slow
def test_a_thousand_mutations(one_step, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    count, seed = int(os.environ.get("SEPT_MUTATIONS", "1000")), int(os.environ.get("SEPT_MUTATIONS_SEED", "1"))
    counts, faults = outcomes(count, seed, tmp_path)
    print(dict(counts), f"{len(faults)} faults", *faults, sep="\n")
    assert not faults
