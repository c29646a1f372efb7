"""What the hardware resolves to, and what is refused in one line; cards and drivers are those of a tiny libcuda."""

import logging
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import pretended_driver
import pytest
import torch

from sept.engines.dispatch import Worker
from sept.errors import ConfigError
from sept.ranges import check_ranges
from sept.retrieval.scan import full_float32
from sept.runtime import driver, hardware
from sept.runtime.driver import Card
from sept.runtime.hardware import Runtime, resolve
from sept.runtime.settings import Hardware

CORES = hardware.cores()


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    found = pretended_driver.compiled(tmp_path_factory.mktemp("driver"))
    return found or pytest.skip("no C compiler")


@pytest.fixture
def gpus(library, monkeypatch):
    """A machine with two cards; sets what its driver says."""

    def say(**answers: object) -> None:
        for name, value in answers.items():
            monkeypatch.setenv(f"PRETENDED_{name.upper()}", str(value))

    monkeypatch.setattr(driver, "LIBRARY", str(library))
    monkeypatch.delenv(driver.VISIBLE, raising=False)
    hardware._tell.cache_clear()
    say(cuda=1000 * (torch.version.cuda is None or int(torch.version.cuda.split(".")[0])))
    return say


@pytest.fixture
def no_driver(monkeypatch):
    monkeypatch.setattr(driver, "LIBRARY", "libthere_is_none.so.1")


def test_the_driver_says_what_the_cards_are(gpus):
    gpus(cuda=12040, first=80, second=75)
    found = driver.open_driver()
    assert (found.devices(), found.version()) == (2, (12, 4))
    assert driver.cards(5) == [
        Card("Pretended T4", (8, 0), 80 * 2**30),
        Card("Pretended T4", (7, 5), 80 * 2**30),
    ]
    assert [card.has_bf16 for card in driver.cards(2)] == [True, False]


def test_auto_takes_the_gpus_that_are_there(gpus):
    found = resolve(Hardware(devices=2))
    assert (found.accelerator, found.precision, found.workers) == ("cuda", "bf16-mixed", max(1, CORES // 2))
    assert resolve(Hardware(precision="32")).precision == "32-true"
    with pytest.raises(ConfigError, match=r"hardware.devices=3: the driver reports 2 CUDA devices"):
        resolve(Hardware(devices=3))


def test_without_a_driver_auto_is_the_cpu_and_says_nothing(no_driver, caplog):
    found = resolve(Hardware())
    assert (found.accelerator, found.precision, found.workers, found.threads) == ("cpu", "32-true", 0, CORES)
    assert caplog.messages == []
    with pytest.raises(ConfigError, match=r"cuda: the driver reports no CUDA device; or use hardware.accelerator=cpu"):
        resolve(Hardware(accelerator="cuda"))


def test_the_cpu_asks_no_driver(gpus):
    gpus(init=999)
    found = resolve(Hardware(accelerator="cpu", precision="bf16-mixed"))
    assert (found.accelerator, found.precision) == ("cpu", "bf16-mixed")


@pytest.mark.parametrize(("cores", "devices", "expected"), [(64, 8, 8), (64, 1, 16), (2, 4, 1), (12, 2, 6)])
def test_workers_are_the_cores_of_each_device_and_no_more_than_it_needs(cores, devices, expected):
    assert hardware._workers(Hardware(devices=devices), "cuda", cores) == expected
    assert hardware._workers(Hardware(devices=devices, workers=3), "cuda", cores) == 3
    assert hardware._workers(Hardware(devices=devices), "cpu", cores) == 0


@pytest.mark.parametrize("workers", [-1, "many", 1.5, True, None])
def test_workers_that_are_no_number_are_refused(workers):
    def check(hardware: Hardware) -> None:
        check_ranges(hardware, "hardware.")
        hardware.check()

    with pytest.raises(ConfigError, match=r"hardware.workers=.*: must be auto or "):
        check(Hardware(workers=workers))
    check(Hardware(workers="auto"))
    check(Hardware(workers=0))


@pytest.mark.parametrize("visible", ["", "-1", "x"])
def test_a_variable_that_hides_all_cards_is_named(gpus, visible, monkeypatch, caplog):
    monkeypatch.setenv(driver.VISIBLE, visible)
    with pytest.raises(ConfigError, match=f"cuda: the environment's CUDA_VISIBLE_DEVICES='{visible}' hides every"):
        resolve(Hardware(accelerator="cuda"))
    found = [resolve(Hardware()) for _ in range(2)]
    assert [each.accelerator for each in found] == ["cpu", "cpu"]
    [line] = caplog.messages  # once, however many cells a sweep has
    assert f"uses the CPU: the environment's CUDA_VISIBLE_DEVICES='{visible}' hides every CUDA device" in line


def test_a_driver_that_does_not_start_is_told(gpus, caplog):
    gpus(init=803)
    with pytest.raises(ConfigError, match=r"does not start \(cuInit: error 803\)"):
        resolve(Hardware(accelerator="cuda"))
    assert resolve(Hardware()).accelerator == "cpu"
    assert "error 803" in caplog.text


def test_cards_that_are_not_there_although_a_driver_is_are_no_surprise(gpus, caplog):
    gpus(cards=0)
    assert resolve(Hardware()).accelerator == "cpu"
    assert caplog.messages == []


def test_a_card_without_bfloat16_computes_in_float32(gpus, caplog):
    gpus(second=75)
    assert resolve(Hardware()).precision == "bf16-mixed"  # the second is not used
    assert [resolve(Hardware(devices=2)).precision for _ in range(2)] == ["32-true", "32-true"]
    lacks = r"Pretended T4 \(compute capability 7.5\) has no bfloat16"
    [line] = caplog.messages
    assert line == "hardware.precision=auto is 32: " + lacks.replace("\\", "")
    assert caplog.records[0].levelno == logging.WARNING
    with pytest.raises(ConfigError, match=f"hardware.precision=bf16-mixed: {lacks}; use hardware.precision=32"):
        resolve(Hardware(devices=2, precision="bf16-mixed"))


def test_the_installed_torch_is_read_without_importing_it():
    found = driver.torch_build()
    assert found.version == torch.__version__
    assert found.cuda == (torch.version.cuda and tuple(map(int, torch.version.cuda.split("."))))


TORCHES = {
    "cpu": "__version__ = '2.11.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n",
    "13.2": "__version__ = '2.15.0+cu132'\ncuda: Optional[str] = '13.2'\n",
    "12.8": "__version__ = '2.11.0+cu128'\ncuda = '12.8'\n",
    "unknown": "version = 3\n",
}


@pytest.mark.parametrize(
    ("build", "driver_cuda", "told"),
    [
        ("cpu", 12080, "supports CUDA 12.8, but torch 2.11.0+cpu was built without CUDA: install one for CUDA 12, or"),
        (
            "13.2",
            12080,
            "2 CUDA devices and supports CUDA 12.8, but torch 2.15.0+cu132 was built for CUDA 13.2: update",
        ),
        ("13.2", 13000, ""),  # a minor version of CUDA runs on every driver of its major one
        ("12.8", 13000, ""),
        ("unknown", 12080, ""),
    ],
)
def test_a_torch_that_cannot_use_the_driver_is_refused_before_it_is_imported(
    build, driver_cuda, told, library, tmp_path
):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('nothing may import it')")
    (tmp_path / "torch" / "version.py").write_text(TORCHES[build])
    program = (
        "import sys; from sept.config import Hardware; from sept.runtime.hardware import resolve\n"
        "try: print(resolve(Hardware(accelerator=sys.argv[1])).accelerator)\n"
        "except ValueError as error: print(error)"
    )
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "LD_LIBRARY_PATH": str(library.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program, "auto"],
        env={**os.environ, **paths, "PRETENDED_CUDA": str(driver_cuda)},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout.strip()
    if not told:
        assert said == "cuda"
        return
    assert said.startswith("hardware.accelerator=auto: the driver reports ")
    assert told in said
    assert said.endswith("or run on the CPU with hardware.accelerator=cpu")
    assert len(said.splitlines()) == 1


def test_float32_is_float32_in_products_and_convolutions_alike():
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    for part in parts:
        part.fp32_precision = "tf32"
    Runtime(threads=1).configure_torch()
    with full_float32():
        pass
    assert [part.fp32_precision for part in parts] == ["ieee"] * 3
    assert torch.get_num_threads() == 1
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (False, False)  # no mixture
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.fixture
def selected(monkeypatch) -> list[object]:
    """What becomes the current device of torch, which is told that there are some."""
    chosen: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_a_process_computes_on_the_device_that_is_its_own(selected):
    for each in (Runtime("cuda"), Runtime("cuda:3"), Runtime("cuda", devices=4, rank=2), Runtime("cpu", rank=1)):
        each.configure_torch()
    assert selected == [0, 3, 2]


def made(seen: list, device: str):
    CALLS.append(device)
    return seen.append


CALLS: list[object] = []


def test_a_worker_of_an_engine_takes_its_device_before_it_makes_its_work(selected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_device", CALLS.append)
    CALLS.clear()
    assert Worker().start(pickle.dumps(partial(made, [])), "cuda:3") is None
    assert CALLS == [3, "cuda:3"]
    assert Worker().start(pickle.dumps(partial(made, [])), "cpu") is None
    assert CALLS == [3, "cuda:3", "cpu"]


def test_train_tells_it_in_one_line(library, tmp_path):
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, str(root / "train.py"), "plan=true", "hardware.precision=bf16-mixed"],
        env={**os.environ, "LD_LIBRARY_PATH": str(library.parent), "PRETENDED_FIRST": "75", "PRETENDED_CUDA": "99000"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ConfigError.exit_code
    assert done.stderr.splitlines() == [
        "error: hardware.precision=bf16-mixed: Pretended T4 (compute capability 7.5) has no bfloat16; "
        "use hardware.precision=32"
    ]
