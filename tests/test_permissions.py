"""Who may read a store follows the umask, for each of its files whatever library wrote it."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Tiny
from safetensors.torch import save_file

from sept.errors import StorageError
from sept.store import CHECKPOINTS, Artefact, Step, Store


@contextmanager
def masked(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def private(folder: Path, inputs: Mapping[str, Artefact]) -> dict:
    """Writes by libraries that take files of the owner alone, and plainly."""
    (folder / "backbone").mkdir(exist_ok=True)
    save_file({"w": torch.ones(1)}, folder / "backbone" / "model.safetensors")
    handle, _ = tempfile.mkstemp(dir=folder)
    os.close(handle)
    np.save(folder / "index.npy", np.ones(1))
    (folder / "tool").write_bytes(b"")
    (folder / "tool").chmod(0o777)
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    return {}


def modes(root: Path, but: tuple[str, ...] = ()) -> dict[str, str]:
    """Of all that is below `root`, by path; the root's own is its maker's."""
    found = {}
    for path in root.rglob("*"):
        if not path.relative_to(root).parts[0].startswith(but):
            found[str(path.relative_to(root))] = oct(path.stat().st_mode & 0o7777)
    return found


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_everything_in_a_store_follows_the_umask(umask, tmp_path):
    store, step = Store(tmp_path / "store"), Step("embed", 1, {}, {}, private)
    with masked(umask):
        store.make(step)
        Store(store.root, force=["embed"]).make(step)
    wanted = {True: oct(0o777 & ~umask), False: oct(0o666 & ~umask)}
    found = modes(store.root)
    assert len(found) > 8
    assert found == {name: wanted[(store.root / name).is_dir()] for name in found}


def test_all_that_a_whole_run_leaves_follows_the_umask(tiny: Tiny):
    mask = os.umask(0o022)
    os.umask(mask)
    wanted = {True: oct(0o777 & ~mask), False: oct(0o666 & ~mask)}
    found = modes(tiny.store)
    assert {Path(name).suffix for name in found} >= {
        ".safetensors",
        ".parquet",
        ".json",
        ".npy",
        ".bin",
        ".tar",
        ".csv",
    }
    assert found == {name: wanted[(tiny.store / name).is_dir()] for name in found}


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user for a moment")
def test_an_artefact_that_may_not_be_read_is_not_called_absent(tmp_path):
    store, step = Store(tmp_path / "store"), Step("embed", 1, {}, {}, private)
    made = store.make(step)
    for path in (tmp_path, *tmp_path.parents[:-2]):
        path.chmod(0o755)
    (made.path / "manifest.json").chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(StorageError, match=r"manifest\.json: Permission denied"):
            Store(store.root, mode="read-only").make(step)
    finally:
        os.seteuid(0)
