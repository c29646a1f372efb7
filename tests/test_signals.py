"""Signals: at any moment they stop the program or come too late, and never change what it makes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Tiny, command, environment, results, run
from PIL import Image
from test_store import step

from sept.data.images import decode
from sept.errors import Interrupted
from sept.runtime import signals
from sept.runtime.progress import progress
from sept.store import Store

KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
PROGRAMS = (("train.py", "0"), ("search.py", "0"), ("train.py", "2"), ("search.py", "2"))  # with so many data workers
MADE = ("pool", "task", "retriever", "store.json")  # what is there before
LONGEST_S = 12.0  # that a program runs, to begin with


def raised(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


class Destroyed:
    def __del__(self) -> None:
        raised()


def swallowed_by_a_bare_except() -> None:
    with suppress(BaseException):
        raised()


def swallowed_by_a_destructor() -> None:
    Destroyed()


def stopped(work: Callable[[], object]) -> str:
    """What is told of the signal that stops this work."""
    with pytest.raises(Interrupted) as interrupted, signals.raising():
        work()
    assert signals.arrived() is None
    return str(interrupted.value)


@pytest.mark.parametrize("number", KINDS)
def test_a_signal_raises_where_the_program_stands_and_is_no_failure_of_it(number: int) -> None:
    def careless() -> None:
        with suppress(Exception):
            raised(number)
        pytest.fail("went on")

    assert stopped(careless) == f"stopped by {number.name}; the same command resumes from here"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("swallow", [swallowed_by_a_bare_except, swallowed_by_a_destructor])
def test_a_signal_that_something_swallowed_is_raised_at_the_next_boundary_of_work(swallow: Callable[[], None]) -> None:
    def work() -> None:
        swallow()
        with progress("work", 2) as advance:
            advance(1)
        pytest.fail("went on")

    assert "SIGTERM" in stopped(work)


def test_what_fails_after_a_signal_came_was_stopped_by_it() -> None:
    def translating() -> None:
        try:
            raised(signal.SIGINT)
        except BaseException as error:
            raise RuntimeError("a library's own words") from error

    assert "SIGINT" in stopped(translating)


def test_the_next_work_of_the_process_is_not_stopped_by_an_earlier_signal() -> None:
    with suppress(Interrupted), signals.raising():
        raised()
    with signals.remembered() as flag:
        raised()
    assert flag.received == "SIGTERM"
    with signals.raising():
        signals.look()


def test_a_loop_that_remembers_signals_is_stopped_after_it_not_in_it() -> None:
    steps = []

    def work() -> None:
        with signals.remembered(), progress("steps", 2) as advance:
            raised(signal.SIGUSR1)
            advance(1)
            steps.append(1)
        signals.look()
        pytest.fail("went on")

    assert "SIGUSR1" in stopped(work)
    assert steps == [1]


def test_a_signal_is_no_damaged_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    monkeypatch.setattr(Image, "open", lambda *_, **__: raised())
    assert "SIGTERM" in stopped(lambda: decode(path.read_bytes()))


def test_nothing_is_published_once_a_signal_came(tmp_path: Path) -> None:
    def careless(folder: Path, inputs: object) -> dict:
        (folder / "a.bin").write_bytes(b"half")
        swallowed_by_a_bare_except()
        return {}

    store, wanted = Store(tmp_path / "store"), step(build=careless)
    assert "SIGTERM" in stopped(lambda: store.make(wanted))
    assert store.find(wanted) is None
    assert store.failure(wanted) is None
    assert store.make(step(build=lambda folder, inputs: {}))


def test_a_command_ends_with_75_and_a_line_while_it_imports() -> None:
    code = (
        "from sept.runtime import signals; signals.end_program(); import os; os.kill(os.getpid(), 15); print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr == "error: stopped by SIGTERM; the same command resumes from here\n"


def test_a_signal_that_comes_when_all_is_done_comes_too_late() -> None:
    class_of_the_end = "class Last:\n    def __del__(self, kill=os.kill, me=os.getpid()):\n        kill(me, 2)\n"
    code = (
        f"from sept.runtime import signals; signals.end_program()\nimport os, sys\n{class_of_the_end}sys.last = Last()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


class Chain:
    """A program that is stopped by a signal, started again, stopped again, .. until it ends; and so on."""

    def __init__(self, tiny: Tiny, folder: Path, seed: int) -> None:
        self.tiny, self.folder, self.moment = tiny, folder, random.Random(seed)
        self.expected = results(tiny.store)
        self.stopped = self.finished = 0
        self.longest = dict.fromkeys(PROGRAMS, LONGEST_S)

    def anew(self, number: int) -> Path:
        """A store with what takes long to make."""
        store = self.folder / f"store-{number}"
        store.mkdir()
        for name in MADE:
            copy = shutil.copytree if (self.tiny.store / name).is_dir() else shutil.copy
            copy(self.tiny.store / name, store / name)
        return store

    def go(self, signals_sent: int) -> None:
        program, store = PROGRAMS[0], self.anew(0)
        while self.stopped + self.finished < signals_sent:
            if self.run(program, store) == 0:
                found = results(store)
                assert found == {key: self.expected[key] for key in found}
                shutil.rmtree(store)
                self.finished += 1
                program = PROGRAMS[self.finished % len(PROGRAMS)]
                store = self.anew(self.finished)
            else:
                self.stopped += 1
        script, workers = program
        done = run("init=sept", f"hardware.workers={workers}", store=store, script=script)
        assert done.returncode == 0, done.stderr
        found = results(store)
        assert found == {key: self.expected[key] for key in found}

    def run(self, program: tuple[str, str], store: Path) -> int:
        """Sends a signal at a random moment, and gives the exit code: 75, or 0 where that was too late."""
        script, workers = program
        number, after = self.moment.choice(KINDS), self.moment.uniform(0, self.longest[program])
        started = time.monotonic()
        process = subprocess.Popen(
            command("init=sept", f"hardware.workers={workers}", script=script),
            env=environment(store),
            cwd=store.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_handler(process, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(after)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
        told = f"{script} with {workers} workers, {number.name} after {after:.3f} s:\n{out}\n{err}"
        assert process.returncode in (0, 75), told
        assert "Traceback" not in err, told
        if process.returncode == 0:
            self.longest[program] = min(self.longest[program], time.monotonic() - started)
        else:
            assert sum(line.startswith("error: ") for line in err.splitlines()) == 1, told
            assert "\nerror: stopped by " in f"\n{err}", told
        return process.returncode


def wait_for_handler(process: subprocess.Popen, number: int) -> None:
    """Until Python itself has started, and the program's first lines have run."""
    caught = 0
    while not caught >> (number - 1) & 1:
        assert process.poll() is None
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
        time.sleep(0.001)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to know when a program is ready")
@pytest.mark.parametrize("sent", [4, pytest.param(300, marks=pytest.mark.slow)])
def test_signals_at_random_moments_change_nothing(sent: int, tiny: Tiny, tmp_path: Path) -> None:
    chain = Chain(tiny, tmp_path, seed=sent)
    chain.go(sent)
    print(f"{chain.stopped} stopped a program, {chain.finished} came too late")
