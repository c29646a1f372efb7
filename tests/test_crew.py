"""A data worker that is killed or stopped is one line, soon, and none outlives its program."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, command, environment, mostly_slow
from torch.utils.data import Dataset

from sept.data import loading
from sept.data.loading import loader
from sept.errors import WorkerLost
from sept.runtime.lifeline import STATE, Program, stat_field

PARENT, SESSION = 1, 3  # fields as in sept.runtime.lifeline
KILLS, LONGEST_S = 100, 15.0
GONE_S = 10.0  # after which nothing of a killed program may be left


class Dying(Dataset):
    """Zeros; the worker that is to read item `at` gets a signal first."""

    def __init__(self, at: int, number: int) -> None:
        self.at, self.number = at, number

    def __getitem__(self, item: int) -> dict[str, Any]:
        if item == self.at:
            os.kill(os.getpid(), self.number)
        return {"images": torch.zeros(1000, dtype=torch.uint8)}


class Failing(Dataset):
    def __getitem__(self, item: int) -> dict[str, Any]:
        raise RuntimeError("a bug of its own")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            signal.SIGKILL,
            r"killed \(SIGKILL\): often memory that ran out; lower hardware.workers; run the same command again",
        ),
        (signal.SIGBUS, r"killed \(SIGBUS\): /dev/shm, .* is full: .*--shm-size"),
        pytest.param(signal.SIGSTOP, r"was stopped for .* \(SIGSTOP\)", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_is_killed_or_stopped_is_one_line_soon(number, message, monkeypatch):
    monkeypatch.setattr(loading, "STOPPED_LOOKS", 2)
    start = time.monotonic()
    with pytest.raises(WorkerLost, match=message) as caught:
        for _ in loader(Dying(5, number), [[item] for item in range(12)], 2):
            pass
    assert caught.value.exit_code == 71
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 60


def test_what_a_dataset_raises_in_a_worker_passes_as_it_is():
    with pytest.raises(RuntimeError, match="a bug of its own"):
        list(loader(Failing(), [[0], [1]], 1))


def test_a_pass_that_is_given_up_leaves_no_watch_and_no_worker():
    import threading

    batches = iter(loader(Dying(-1, 0), [[item] for item in range(20)], 1))
    next(batches)
    batches.close()
    del batches
    end = time.monotonic() + GONE_S
    while any(thread.name == "crew" for thread in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(thread.name == "crew" for thread in threading.enumerate())


def test_a_full_shared_memory_is_told_in_one_line():
    """As torch's worker says it, which has found it full; where it does not, it is a SIGBUS."""
    error = RuntimeError("unable to write to file </torch_31_17_0>: No space left on device (28)")
    assert "/dev/shm" in loading._no_room(error)
    assert loading._no_room(RuntimeError("No space left on device")) is None


def descendants(program: int) -> set[int]:
    """Processes of the session that the program leads."""
    found = set()
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and stat_field(int(each.name), SESSION) == str(program):
            found.add(int(each.name))
    return found


def left_after(program: subprocess.Popen, kill_s: float) -> set[int]:
    """Kills the program after so long; what is left of its session after GONE_S, or less."""
    try:
        program.wait(kill_s)
    except subprocess.TimeoutExpired:
        program.kill()
    program.wait()
    end = time.monotonic() + GONE_S
    while (left := {pid for pid in descendants(program.pid) if stat_field(pid, STATE) not in ("Z", None)}) and (
        time.monotonic() < end
    ):
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


READING = """
import sys, time, torch
from sept.data.loading import loader
class Zeros(torch.utils.data.Dataset):
    def __getitem__(self, item):
        time.sleep(0.01)
        return {"images": torch.zeros(1000, dtype=torch.uint8)}
if __name__ == "__main__":
    for n, _ in enumerate(loader(Zeros(), [[item] for item in range(100_000)], 2)):
        if n == 3:
            print("reading", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are tied together on Linux only")
@pytest.mark.parametrize("stopped", mostly_slow([True, False]))
def test_a_killed_program_leaves_no_process_behind_even_where_workers_are_stopped(stopped, tmp_path):
    script = tmp_path / "reading.py"
    script.write_text(READING)
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = subprocess.Popen(
        [sys.executable, str(script)], env=surroundings, start_new_session=True, stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"reading\n"
    others = descendants(program.pid) - {program.pid}
    assert len(others) >= 3  # two workers and the process that they were forked from
    for pid in others if stopped else ():
        if stat_field(pid, PARENT) != str(program.pid):  # a worker
            os.kill(pid, signal.SIGSTOP)
    assert left_after(program, 0) == set()
    program.stdout.close()


def test_a_process_that_was_tied_to_a_program_of_the_past_ends():
    code = f"from sept.runtime.lifeline import Program; Program({os.getpid()}, 'long ago').tie(); print('here')"
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert Program.this().started == stat_field(os.getpid(), 19)


@pytest.mark.slow
def test_a_hundred_kills_of_a_run_with_workers_leave_no_process_behind(tmp_path):
    moments = random.Random(0)
    left: dict[float, set[int]] = {}
    for attempt in range(KILLS):
        store = tmp_path / str(attempt // 5) / "store"  # what is killed goes on; then a new one
        store.parent.mkdir(exist_ok=True)
        moment = moments.uniform(0, LONGEST_S)
        program = subprocess.Popen(
            command("hardware.workers=2"),
            env=environment(store),
            cwd=store.parent,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if found := left_after(program, moment):
            left[moment] = found
    assert left == {}


def test_a_process_of_a_launcher_ends_with_the_program_that_started_it():
    tied = "import os, sys, time; from sept.runtime.lifeline import tie_to_parent; tie_to_parent(int(sys.argv[1])); "
    tied += "print(os.getpid(), flush=True); time.sleep(60)"
    start = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {tied!r}, str(os.getpid())])"
    with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        child = int(program.stdout.readline())
        program.kill()
    deadline = time.monotonic() + 10
    while stat_field(child, STATE) not in (None, "Z"):
        assert time.monotonic() < deadline, "it outlives the program"
        time.sleep(0.02)
