"""What work used and cost: measured while it runs, kept in manifests, added up once, and divided among tasks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from sept import ledger
from sept.compose import experiment
from sept.costs.bill import Cost, by_stage, cost, total
from sept.costs.peaks import UNKNOWN_WATTS, peak, watts
from sept.costs.settings import Carbon
from sept.costs.shared import amortised, break_even, break_even_own_architecture
from sept.errors import ConfigError
from sept.pipeline import Pipeline
from sept.results import SHARED
from sept.runtime import meter
from sept.runtime.hardware import resolve
from sept.store import Step, Store

SPIN = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\n"
CARBON = experiment(["carbon=world"]).carbon


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_seconds_of_processes_count_while_they_run_and_after():
    before = meter.cpu_seconds()
    child = subprocess.Popen([sys.executable, "-c", SPIN + "input()"], stdin=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while meter.cpu_seconds() - before < 0.3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.communicate(b"\n")
    assert meter.cpu_seconds() - before >= 0.35


def test_energy_is_that_of_the_counters_even_when_one_starts_again(tmp_path, monkeypatch):
    package, part = tmp_path / "intel-rapl:0", tmp_path / "intel-rapl:0:0"
    for folder in (package, part):
        folder.mkdir()
        (folder / "max_energy_range_uj").write_text("9999999\n")
        (folder / "energy_uj").write_text("9000000\n")
    monkeypatch.setattr(meter, "RAPL", tmp_path)
    noted: list[meter.Used] = []
    with meter.measured(0, noted.append) as read:
        (package / "energy_uj").write_text("9500000\n")
        assert read()["cpu_j"] == 0.5
        (package / "energy_uj").write_text("1500000\n")
        assert read()["cpu_j"] == 2.5  # not that of a part, which the package has counted
    assert noted[-1]["cpu_j"] == 2.5
    assert noted[-1]["gpu_j"] is None


def test_without_counters_energy_is_none_and_never_a_guess(tmp_path, monkeypatch):
    monkeypatch.setattr(meter, "RAPL", tmp_path)
    with meter.measured(2, lambda used: None) as read:
        time.sleep(0.05)
        used = read()
    assert used["cpu_j"] is used["gpu_j"] is None
    assert used["gpu_s"] >= 0.1


@given(*[st.dictionaries(st.sampled_from([*meter.nothing()]), st.none() | st.floats(0, 1e6))] * 2)
def test_uses_add_up_and_what_is_unknown_stays_so(first, second):
    both = meter.added(first, second)
    for name, value in both.items():
        known = [each[name] for each in (first, second) if each.get(name) is not None]
        assert value == (pytest.approx(sum(known), abs=1e-3) if known else None)


def work(folder: Path, inputs: object) -> dict[str, float]:
    spin(0.2)
    return {"flops": 1e9}


def test_every_attempt_counts_in_seconds_and_its_flops_once(tmp_path, monkeypatch):
    """Killed three times, then finished; then built again."""
    monkeypatch.setattr(meter, "EVERY_S", 0.02)
    store = Store(tmp_path / "store")

    def killed(folder: Path, inputs: object) -> dict[str, float]:
        spin(0.2)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed")

    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            store.make(Step("pretrain", 1, {}, {}, killed))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    lines = ledger.of_store(Store(tmp_path / "store", mode="read-only"), CARBON)
    assert any("not finished: pretrain-" in line and "waits to be resumed" in line for line in lines)
    [left] = ledger._unfinished(Store(tmp_path / "store", mode="read-only"))
    assert (left["device"], left["gpus"]) == (meter.device(0), 0)
    step = Step("pretrain", 1, {}, {}, work)
    made = store.make(step)
    assert made.manifest["attempts"] == 4
    assert made.manifest["used"]["cpu_s"] >= 4 * 0.2 - 0.1
    assert made.manifest["earlier"] is None
    [(stage, spent)] = by_stage(map(ledger.record, [made]), CARBON).items()
    assert (stage, spent.flops, spent.artefacts) == ("pretrain", 1e9, 1)

    for builds in (1, 2):
        again = Store(tmp_path / "store", force=["pretrain"]).make(step)
        earlier = again.manifest["earlier"]
        assert (earlier["builds"], earlier["flops"]) == (builds, builds * 1e9)
        assert earlier["used"]["cpu_s"] >= 0.7 + 0.2 * (builds - 1)
    assert any(line.startswith("earlier builds of these") for line in ledger.of_store(store, CARBON))


def test_failed_work_is_listed_with_its_reason(tmp_path):
    store = Store(tmp_path / "store")

    def fails(folder: Path, inputs: object) -> dict[str, float]:
        raise ConfigError("the learning rate is too high")

    store.make(Step("task", 1, {}, {}, work))
    with pytest.raises(ConfigError):
        store.make(Step("pretrain", 1, {}, {}, fails))
    told = ledger.of_store(store, CARBON)
    assert any("failed: the learning rate is too high" in line for line in told)


def record(**values: object) -> dict[str, object]:
    used = {**meter.nothing(), **values.pop("used", {})}  # type: ignore[dict-item]
    plain = {"stage": "pretrain", "key": "k", "flops": 0.0, "wall_s": 1.0, "device": "", "gpus": 0}
    return {**plain, **values, "used": used}


def test_energy_is_modelled_where_it_was_not_measured():
    plain = Carbon(intensity=0.5, pue=1.5, host_factor=1.2, core_watts=10.0)
    alone = cost(record(used={"cpu_s": 3600.0}), plain)
    assert (alone.kwh, alone.measured_kwh) == (pytest.approx(0.015), 0)
    assert alone.co2e(plain) == pytest.approx(0.0075)
    card = record(device="2 x NVIDIA H100 80GB HBM3", gpus=2, flops=9.89e17, used={"gpu_s": 3600.0, "cpu_s": 99.0})
    spent = cost(card, plain)
    assert spent.kwh == pytest.approx(0.7 * 1.2 * 1.5)
    assert spent.utilisation == pytest.approx(9.89e17 / (3600 * 989e12))
    measured = cost({**card, "used": {**card["used"], "gpu_j": 1.8e6, "cpu_j": 0.9e6}}, plain)  # type: ignore[dict-item]
    assert measured.kwh == measured.measured_kwh == pytest.approx(0.75 * 1.5)
    partly = cost({**card, "used": {**card["used"], "gpu_j": 1.8e6}}, plain)  # type: ignore[dict-item]
    assert partly.kwh == pytest.approx(0.5 * 1.2 * 1.5)
    assert partly.measured_kwh == pytest.approx(0.5 * 1.5)


def test_cards_are_known_by_their_names():
    assert watts("NVIDIA H100 PCIe") == 350
    assert watts("Tesla V100-SXM2-16GB") == 300
    assert watts("some card") == UNKNOWN_WATTS
    assert peak("NVIDIA H200") == 989e12
    assert (peak("NVIDIA H200 NVL"), watts("NVIDIA H200 NVL")) == (835e12, 600)
    assert peak("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 10**6)), max_size=30))
def test_an_artefact_that_many_rows_share_is_counted_once(rows):
    """The key decides; a key has one stage and one cost."""
    known = dict(rows)
    records = [record(key=key, stage=f"stage {key}", flops=float(known[key])) for key, _ in rows]
    stages = by_stage(records, CARBON)
    assert total(stages.values()).flops == sum(known.values())
    assert total(stages.values()).artefacts == len(known)


EXA = 1e18


def test_the_break_even_of_the_papers_scale_is_reproduced():
    """SEPT at 100,000 images against MoBy on ImageNet-1k: for up to 12.15 tasks on one architecture with a published
    retriever, and from 5.93 on with an architecture each if the retriever was trained for it."""
    e = experiment(["+experiment=paper", "task=food101", "retriever.weights=x", "budget=100k"])
    own = 100_000 * 300 * e.pretrain.flops(e.backbone)
    baseline = 1_281_167 * 300 * e.pretrain.flops(e.backbone)
    embedding = 155e6 * 9.197e9
    assert own == pytest.approx(2.156 * EXA, rel=1e-3)
    assert baseline == pytest.approx(27.63 * EXA, rel=1e-3)
    assert break_even(embedding, own, baseline) == pytest.approx(12.15, abs=0.02)
    assert break_even(embedding + 149.7 * EXA, own, baseline) < 0
    assert break_even_own_architecture(embedding, own, baseline) == pytest.approx(0.06, abs=0.01)
    assert break_even_own_architecture(embedding + 149.7 * EXA, own, baseline) == pytest.approx(5.93, abs=0.01)


@given(st.floats(1, 1e3), st.floats(1, 1e3), st.floats(1, 1e6))
def test_at_the_break_even_both_cost_the_same(shared, own, baseline):
    tasks = break_even(shared, own, baseline)
    if tasks > 0:
        assert tasks * amortised(own, shared, tasks) == pytest.approx(baseline)
    first = break_even_own_architecture(shared, own, baseline)
    if first < float("inf"):
        assert first * amortised(own, shared, first) == pytest.approx(first * baseline)


def test_the_bill_of_a_table_is_that_of_its_artefacts(tmp_path):
    cells = [experiment([*TINY, f"init={init}", f"store.root={tmp_path}"]) for init in ("rand_init", "random", "sept")]
    pipelines = [Pipeline(e, resolve(e.hardware)) for e in cells]
    store = Store(tmp_path)
    for each in pipelines:
        store.make(each.run)
    made = {step.key: store.find(step) for each in pipelines for step in each.run.walk()}
    told = ledger.of_table(cells)
    [every] = [line for line in told if line.startswith("all ")]
    flops = sum(each.facts.get("flops", 0.0) for each in made.values())
    assert every.split()[:3] == ["all", str(len(made)), f"{flops:.3g}"]
    [crossing] = [line for line in told if "sept: " in line and "on ImageNet-1k" in line]
    sept = [made[step.key] for step in pipelines[2].run.walk()]
    shared = sum(each.facts.get("flops", 0.0) for each in sept if each.stage in SHARED)
    own = sum(each.facts.get("flops", 0.0) for each in sept if each.stage not in (*SHARED, "finetune"))
    baseline = 1_281_167 * cells[2].compute.epochs * cells[2].pretrain.flops(cells[2].backbone)
    assert f"({break_even(shared, own, baseline):,.2f})" in crossing  # fine-tuning is the same for both
    whole = ledger.of_store(store, cells[0].carbon)
    assert next(line for line in whole if line.startswith("all ")).split()[:3] == every.split()[:3]
    named = [line.partition("   ")[0] for line in told if line.startswith("  patterns_a")]
    assert [name.rpartition(" ")[2] for name in named] == ["rand_init", "random", "sept"]


def test_an_empty_store_and_a_wrong_name_are_told_in_one_line(tmp_path, capsys):
    assert ledger.main([f"store.root={tmp_path / 'none'}"]) == 78
    assert "holds no artefacts" in capsys.readouterr().err
    assert ledger.main(["carbon=mars"]) == 78
    assert "carbon" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"is not within carbon\.band"):
        experiment(["carbon.intensity=0.7"])


def test_costs_can_be_added_and_divided():
    one = Cost(1, 2.0, 4.0)
    assert one + one == Cost(2, 4.0, 8.0)
    assert (one + one) * 0.5 == Cost(2, 2.0, 4.0)
