"""`python -m sept.gpu`: what it tells, what it writes, how it ends, and which packages it does without."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import conftest
import pytest
import torch

from sept.costs.peaks import peak
from sept.gpu import __main__ as command
from sept.gpu import cases, equality, fits, stages, two
from sept.gpu.card import Card
from sept.gpu.checks import Trained
from sept.gpu.report import Report, Result, Skip
from sept.gpu.runner import OutOfTime, stopping
from sept.runtime.hardware import Runtime

ABSENT = ("hydra", "omegaconf", "faiss", "wandb", "faster_coco_eval", "pycocotools")
BLOCK = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def found(name, path=None, target=None):
    return None if name.partition(".")[0] in {absent} else find(name, path, target)
PathFinder.find_spec = staticmethod(found)
"""


def good(card: Card) -> Result:
    return Result("sum", True, 2, "2", "by adding")


def figure(card: Card) -> list[Result]:
    return [Result("speed", True, 1234.5, unit="images/s"), Result("more", True, 0.125)]


def bad(card: Card) -> Result:
    return Result("product", False, 5, "4")


def broken(card: Card) -> Result:
    raise ValueError("the first line\nand more")


def skipped(card: Card) -> Result:
    raise Skip("needs two cards")


PLANTED = {"right": {"sum": good, "speed": figure}, "wrong": {"product": bad, "broken": broken, "skipped": skipped}}


def told(folder: Path, *options: str, sections=PLANTED) -> tuple[int, dict]:
    code = command.main(["--out", str(folder), *options], sections)
    return code, json.loads((folder / "gpu.json").read_text())


def test_failed_checks_are_told_the_others_go_on_and_the_exit_code_counts_them(tmp_path, capsys):
    code, found = told(tmp_path / "report")
    assert code == found["failed"] == 2
    assert [(each["section"], each["name"], each["status"]) for each in found["results"]] == [
        ("right", "sum", "ok"),
        ("right", "speed", "-"),
        ("right", "more", "-"),
        ("wrong", "product", "FAILED"),
        ("wrong", "broken", "FAILED"),
        ("wrong", "skipped", "skipped"),
    ]
    assert [each["text"] for each in found["results"][-2:]] == ["ValueError: the first line", "needs two cards"]
    said = capsys.readouterr()
    assert said.out.startswith("NO CUDA DEVICE HERE")
    assert "\nFAILED wrong: product: 5; 4\nFAILED wrong: broken: ValueError: the first line\n" in said.out
    assert "1 checks passed, 2 failed, 1 skipped; 2 figures" in said.out
    assert "wrong: broken" in said.err


def test_the_markdown_holds_every_result_in_tables_that_parse(tmp_path):
    _, found = told(tmp_path)
    lines = (tmp_path / "gpu.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| |")]
    assert len(rows) == len(found["results"])
    assert {line.count("|") for line in lines if line.startswith("|")} == {6}
    assert "| FAILED | product | 5 | 4 |  |" in rows
    assert "| - | speed | 1,234 images/s |  |  |" in rows
    assert found["title"] in lines


def test_sections_can_be_chosen(tmp_path, capsys):
    code, found = told(tmp_path, "--only", "right")
    assert (code, found["sections"]) == (0, ["right"])
    with pytest.raises(SystemExit):
        told(tmp_path, "--only", "nothing")
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


def test_what_there_is_no_time_for_is_told_and_a_check_that_goes_on_is_stopped(tmp_path):
    def endless(card: Card) -> Result:
        time.sleep(60)
        return good(card)

    start = time.monotonic()
    code, found = told(tmp_path, "--minutes", "0.01", sections={"slow": {"endless": endless, "sum": good}})
    assert time.monotonic() - start < 10
    assert code == 0
    assert [each["status"] for each in found["results"]] == ["skipped", "skipped"]
    assert found["results"][0]["text"] == "stopped: the 0.01 minutes of --minutes have passed"
    assert found["results"][1]["text"] == "the 0.01 minutes of --minutes have passed"


def test_a_limit_within_a_limit_leaves_the_outer_one_on():
    def around() -> None:
        with stopping(0.2):
            with stopping(60):
                pass
            time.sleep(5)

    with pytest.raises(OutOfTime):
        around()


def test_ctrl_c_ends_the_command_with_a_report_of_what_was_done(tmp_path):
    def interrupted(card: Card) -> Result:
        raise KeyboardInterrupt

    code, found = told(tmp_path, sections={"first": {"sum": good}, "then": {"stop": interrupted, "sum": good}})
    assert (code, len(found["results"])) == (command.INTERRUPTED, 1)


def test_the_real_sections_have_names_of_their_own_and_no_check_is_there_twice():
    names = [name for checks in command.SECTIONS.values() for name in checks]
    assert len(names) == len(set(names)) > 40
    assert set(fits.STEPS) < set(names)


@pytest.fixture
def card(tmp_path) -> Card:
    return Card(False, 0, tmp_path)


def test_lists_views_and_vectors_are_compared(card):
    results = [*equality.views(card), equality.vectors(card), equality.lists(card, "guessed")]
    assert [each.passed for each in results] == [True] * 4


def test_wrong_lists_are_seen(card, monkeypatch):
    search = equality.search

    def off_by_one(queries, features, depth, device="cpu", **options):
        found = search(queries, features, depth, device, **options)
        if device == "cuda":
            found.rows[2] += 1
        return found

    monkeypatch.setattr(equality, "search", off_by_one)
    result = equality.lists(card, "exact")
    assert (result.passed, result.value) == (False, "1 of 30 lists differ")


def test_wrong_losses_and_weights_are_seen(card):
    made = cases.case("Classifier", card)
    start = {name: value.detach().clone() for name, value in made.make().state_dict().items()}

    def ended(step: float, *losses: float) -> Trained:
        state = {name: value + step if value.is_floating_point() else value for name, value in start.items()}
        return Trained(state, [*losses])

    expected, real = ended(0.01, 1.0, 0.9), replace(card, real=True)

    def passed(factor: float, *losses: float) -> list[bool | None]:
        found = ended(0.01 * factor, *losses)
        return [each.passed for each in equality.compared(real, "", made, found, expected)]

    assert passed(1.01, 1.000001, 0.90001) == [True, True]
    assert passed(1.2, 1.000001, 0.90001) == [True, False]
    assert passed(1.01, 1.001, 0.90001) == [False, True]
    assert passed(1.01, 1.0, 0.91) == [False, True]
    [exact] = equality.compared(card, "", made, expected, replace(expected, losses=[1.0, 0.9000001]))
    assert exact.passed is False


def test_steps_of_a_learner_are_those_of_the_cpu(card, monkeypatch):
    monkeypatch.setattr(equality, "FEW", 2)
    [result] = equality.steps(card, "Classifier")
    assert (result.name, result.passed) == ("2 steps of Classifier", True)


def test_a_step_that_holds_more_than_was_counted_is_seen(card, monkeypatch):
    name = "MoBy Swin-T, 512 images, all in chunks of 128"
    monkeypatch.setattr(fits, "_counted", lambda *_: 2**20)
    result = fits.fits(card, name)
    assert result.passed is False
    assert result.expected == "<= 1.5 MiB"


def test_a_peak_is_known_by_the_whole_name_of_a_card():
    assert peak("NVIDIA H100 PCIe") == 756e12
    assert peak("NVIDIA H100 80GB HBM3") == 989e12
    assert peak("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak("NVIDIA L4") == 121e12
    assert peak("NVIDIA L40S") == 362e12
    assert peak("NVIDIA GeForce RTX 4090") == 165e12
    assert peak("NVIDIA GeForce RTX 4090 Laptop GPU") is None
    assert peak("Tesla V100-SXM2-32GB") is None


def test_a_detector_is_trained_without_the_package_that_tests_it(card, monkeypatch):
    monkeypatch.setattr(cases, "find_spec", lambda name: None)
    monkeypatch.setattr("sept.transfer.detection_metrics.find_spec", lambda name: None)
    assert cases.case("Detector", card).make().steps == cases.STEPS
    monkeypatch.setattr(stages, "find_spec", lambda name: None)
    with pytest.raises(Skip, match="pip install 'sept\\[detect\\]'"):
        stages.detected(card)


def test_a_report_counts(tmp_path):
    report = Report("a card", {"wall_s": 1.0, "cpu_s": 2.0, "command": "c"}, [bad(None), good(None)])
    assert report.failed == 1
    assert report.summary() == "1 checks passed, 1 failed, 0 skipped; 0 figures; 1 s, 2 CPU seconds"


def absent(folder: Path) -> dict[str, str]:
    """The environment of a command that finds none of ABSENT."""
    (folder / "sitecustomize.py").write_text(BLOCK.format(absent=set(ABSENT)))
    path = os.pathsep.join([str(folder), str(conftest.ROOT)])
    return {**os.environ, "PYTHONPATH": path}


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sept.gpu", *options]
    return subprocess.run(
        command, cwd=folder, env=absent(folder), capture_output=True, text=True, timeout=900, check=False
    )


def test_it_runs_where_hydra_and_others_are_not_installed(tmp_path):
    done = run(tmp_path, "--only", "surroundings")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("NO CUDA DEVICE HERE: what follows ran on a SIMULATED device")
    found = json.loads((tmp_path / "gpu-report" / "gpu.json").read_text())
    values = {each["name"]: each["value"] for each in found["results"]}
    assert values["torch"] == torch.__version__
    blocked = [sys.executable, "-c", "import hydra"]
    tried = subprocess.run(blocked, env=absent(tmp_path), capture_output=True, text=True, check=False)
    assert "No module named 'hydra'" in tried.stderr
    assert values["driver"] == "none"
    assert found["pretended"] is True


@pytest.mark.slow
def test_the_whole_command_passes_on_a_pretended_device(tmp_path):
    done = run(tmp_path)
    found = json.loads((tmp_path / "gpu-report" / "gpu.json").read_text())
    failed = [each["name"] for each in found["results"] if each["passed"] is False]
    assert (failed, done.returncode) == ([], 0), done.stderr
    assert list(dict.fromkeys(each["section"] for each in found["results"])) == list(command.SECTIONS)
    left = {each["name"] for each in found["results"] if each["passed"] is None and "no card" not in each["text"]}
    assert left == {"card", "stage detect", "two processes equal one", "scaling to two cards"}


@pytest.mark.slow
def test_two_processes_equal_one_and_their_rate_is_measured(card):
    """What needs two cards, by two processes on the CPU."""
    one = Runtime(threads=1)
    results = two.equality(card, one, replace(one, devices=2, threads=2))
    assert [each.passed for each in results] == [True, True]
    assert two.rate(card, replace(one, devices=2, threads=2), 16) > 0
