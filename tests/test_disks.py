"""A disk that is full, read-only or over a quota is one line and exit code 74, whatever library met it."""

import errno
import gc
import logging
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sept.errors import ConfigError, StorageError
from sept.runtime import command
from sept.runtime.failures import refusal
from sept.store import Artefact, Step, Store
from sept.store.disk import refusals

LIMIT = 10_000  # bytes that a file may have
NOISE = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8)


def figure(path: Path) -> None:
    from matplotlib.figure import Figure

    made = Figure()
    made.subplots().imshow(NOISE[:90_000].reshape(300, 300))
    made.savefig(path, format="png", dpi=300)


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: path.write_bytes(NOISE.tobytes()),
    "text": lambda path: path.write_text("a" * LIMIT * 9),
    "numpy": lambda path: np.save(path.with_suffix(".npy"), NOISE),
    "tofile": lambda path: NOISE.tofile(path),
    "safetensors": lambda path: save_file({"w": torch.from_numpy(NOISE)}, path),
    "torch": lambda path: torch.save({"w": torch.from_numpy(NOISE)}, path),
    "torch stream": lambda path: torch.save({"w": torch.from_numpy(NOISE)}, path.open("wb")),
    "parquet": lambda path: pq.write_table(pa.table({"w": NOISE}), path),
    "pillow": lambda path: Image.fromarray(NOISE.reshape(300, 1000)).save(path, format="png"),
    "matplotlib": figure,
}


@pytest.fixture
def small_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", WRITERS)
def test_what_each_library_says_of_a_disk_that_refuses_is_a_storage_error(name, small_files, tmp_path):
    with pytest.raises(StorageError, match=r"cannot write .*; free space") as caught, refusals(tmp_path):
        WRITERS[name](tmp_path / "file")
    assert caught.value.exit_code == 74
    assert "\n" not in str(caught.value)
    del caught
    gc.collect()  # files that are still open, while it is ignored here that they are


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_a_reason_is_found_behind_what_it_led_to(number):
    try:
        try:
            raise OSError(number, os.strerror(number), "/there/is/file")
        except OSError as error:
            raise ValueError("could not finish") from error
    except ValueError as error:
        found = refusal(error)
    assert str(found) == f"cannot write /there/is/file: {os.strerror(number)}; free space or choose another place"


def test_another_failure_is_none_of_the_disk():
    assert refusal(ValueError("shapes differ")) is None
    assert refusal(FileNotFoundError(errno.ENOENT, "No such file or directory", "/pool/a.png")) is None
    forbidden = PermissionError(errno.EACCES, "Permission denied", "/pool/a.png")
    assert refusal(forbidden, Path("/store")) is None  # that was read
    assert refusal(forbidden, Path("/pool")) is not None


def test_a_stage_that_fills_the_disk_raises_a_storage_error_and_is_resumable(small_files, tmp_path):
    def build(folder: Path, inputs: dict[str, Artefact]) -> dict[str, int]:
        WRITERS["safetensors"](folder / "w.safetensors")
        return {}

    store = Store(tmp_path / "store")
    step = Step("embed", 1, {}, {}, build)
    with pytest.raises(StorageError, match=str(store.work_folder(step))):
        store.make(step)
    assert store.status(step) == "unfinished"


def test_what_a_stopped_removal_left_is_freed_by_the_next_command_that_writes(tmp_path):
    (tmp_path / "store" / ".removed" / "left").mkdir(parents=True)
    (tmp_path / "store" / ".removed" / "left" / "a.bin").write_bytes(bytes(100))
    Store(tmp_path / "store").make(Step("embed", 1, {}, {}, lambda folder, inputs: {"images": 1}))
    assert list((tmp_path / "store" / ".removed").iterdir()) == []


# How a command ends


def ended(monkeypatch, main: Callable[[], int | None], out: str = os.devnull, encoding: str = "utf-8") -> object:
    """The exit code of a command whose output goes to a file."""
    with open(out, "w", encoding=encoding) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as leaving:
            command.run(main)
    return leaving.value.code


def raised(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "line"),
    [
        (lambda: None, 0, ""),
        (lambda: 65, 65, ""),
        (raised(SystemExit(3)), 3, ""),
        (raised(ConfigError("lr=nan: no rate\n    full_key: lr")), 78, "error: lr=nan: no rate\n"),
        (
            raised(OSError(errno.ENOSPC, "No space left on device", "a.html")),
            74,
            "error: cannot write a.html: No ",
        ),
        (raised(PermissionError(errno.EACCES, "Permission denied", "a.html")), 74, "error: a.html: Permission denied"),
        (raised(KeyboardInterrupt()), 130, "error: stopped by Ctrl-C"),
        (raised(ZeroDivisionError()), 70, "Traceback"),
    ],
)
def test_a_command_ends_with_a_line_and_the_code_of_its_kind(main, code, line, monkeypatch, capsys):
    assert ended(monkeypatch, main) == code
    told = capsys.readouterr().err
    assert told.startswith(line)
    assert bool(told) == bool(line)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_signs_that_the_output_cannot_show_are_replaced(encoding, monkeypatch, tmp_path):
    assert ended(monkeypatch, lambda: print("80 ± 1 │"), str(tmp_path / "out"), encoding) == 0
    expected = {"ascii": "80 ? 1 ?\n", "latin-1": "80 ± 1 ?\n", "utf-8": "80 ± 1 │\n"}[encoding]
    assert (tmp_path / "out").read_text(encoding) == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_output_on_a_full_disk_is_told(monkeypatch, capsys):
    assert ended(monkeypatch, lambda: print("row"), "/dev/full") == 74
    assert (
        capsys.readouterr().err == "error: cannot write the output: No space left on device; free space where it goes\n"
    )


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_gone_ends_a_command_quietly(lines, monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    code = ended(monkeypatch, lambda: print("row\n" * lines), writing)
    assert (code, capsys.readouterr().err) == (141, "")


def test_log_lines_that_cannot_be_written_give_no_tracebacks(monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)

    def main() -> None:
        handler = logging.StreamHandler(sys.stdout)  # as Hydra's, of a sweep
        handler.emit(logging.LogRecord("sweep", logging.INFO, "", 1, "Launching 3 jobs", (), None))
        handler.close()
        print("row")

    assert (ended(monkeypatch, main, writing), capsys.readouterr().err) == (141, "")
