"""One flipped byte of an artefact: the stage that reads it next refuses, or makes what it would have made."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TINY, Tiny

from sept import compose
from sept.errors import DataError
from sept.pipeline import Pipeline
from sept.runtime.hardware import resolve
from sept.store import Step, Store
from sept.store import store as store_module
from sept.store.step import MANIFEST


@contextmanager
def flipped(path: Path, place: int, bit: int) -> Iterator[None]:
    """Inside, a bit of a file is another, as a disk alters it: nothing else of the file tells."""
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    store_module._whole.clear()  # what this process had read before
    try:
        yield
    finally:
        path.write_bytes(whole)


def files(folder: Path) -> dict[str, dict]:
    """What the manifest says of all files but curves, which tell of attempts."""
    found = json.loads((folder / MANIFEST).read_text())["files"]
    return {name: known for name, known in found.items() if not name.startswith("curves/")}


def read_by_the_next(reader: Step, name: str, place: float, bit: int, store: Store, aside: Path) -> str:
    """ "refused", "unread" where the result is the same, or "silent", of a flip in an input of a step that is made."""
    made = store.make(reader).path
    upstream = store.make(reader.needs[name]).path
    chosen = sorted(known for known, file in files(upstream).items() if file["size"])
    path = upstream / chosen[int(place * len(chosen)) % len(chosen)]
    expected = files(made)
    made.rename(aside)
    try:
        with flipped(path, int(place * 1e6) % path.stat().st_size, bit):
            again = store.make(reader).path
            return "unread" if files(again) == expected else f"silent: {path.relative_to(store.root)}"
    except DataError as error:
        return "refused" if path.name in str(error) or path.parent.name in str(error) else f"not named: {error}"
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(store.work_folder(reader), ignore_errors=True)
        aside.rename(made)


@pytest.mark.parametrize("flips", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_a_flipped_byte_of_an_input_is_refused_by_the_stage_that_reads_it(
    flips: int, tiny: Tiny, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    shutil.copytree(tiny.store, root)
    e = compose.experiment([*TINY, "init=sept", f"store.root={root}"])
    pairs = [
        (step, name)
        for step in Pipeline(e, resolve(e.hardware)).run.walk()
        for name in step.inputs
        if step.stage != "retriever"  # takes long, and reads a subset, as the pre-training does
    ]
    drawn, told = random.Random(flips), Counter[str]()
    for number in range(flips):
        reader, name = pairs[number % len(pairs)]
        told[read_by_the_next(reader, name, drawn.random(), drawn.randrange(8), Store(root), tmp_path / "aside")] += 1
    print(dict(told))
    assert set(told) <= {"refused", "unread"}
    assert told["refused"] > 0.8 * flips
