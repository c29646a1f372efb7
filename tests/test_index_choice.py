"""`index=...`: an approximate index that looks everywhere selects what the exact scan does, and says how good it is."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Tiny, run

KEPT = ("pool", "task", "retriever", "features", "queries", "store.json")


def copied(tiny: Tiny, store: Path) -> Path:
    """The store of the tests' common run, up to the features and queries."""
    store.mkdir()
    for name in KEPT:
        copy = shutil.copytree if (tiny.store / name).is_dir() else shutil.copy
        copy(tiny.store / name, store / name)
    return store


@pytest.mark.parametrize("index", ["ivf_sq8", "milvus"])
def test_an_index_that_looks_into_every_cell_selects_what_the_exact_scan_does(index, tiny: Tiny, tmp_path: Path):
    pytest.importorskip("milvus_lite" if index == "milvus" else "faiss")
    store = copied(tiny, tmp_path / "store")
    choices = [f"index={index}", "index.nlist=8", "index.nprobe=8", "index.sample=5"]
    done = run(*choices, store=store, script="search.py")
    assert done.returncode == 0, done.stderr
    [found] = (store / "selection").glob("patterns-sept*")
    exact = [path.read_bytes() for path in (tiny.store / "selection").glob("patterns-sept*/selection.parquet")]
    assert (found / "selection.parquet").read_bytes() in exact  # other tests select there too, with other seeds
    facts = json.loads((found / "manifest.json").read_text())["facts"]
    assert (facts["index_recall"], facts["index_kept"]) == (1, 1)
    again = run(*choices, "index.nprobe=4", "plan=true", store=store)
    [steps] = [line.split()[1:4] for line in again.stdout.splitlines() if line.startswith("index ")]
    assert steps == ["1", "1", "0"]  # cached: another share of cells is another selection from the same index


def test_an_int8_copy_is_scanned_for_the_same_selection_of_the_same_key(tiny: Tiny, tmp_path: Path):
    store = copied(tiny, tmp_path / "store")
    done = run("index=int8", "hardware.search_mib=1", store=store, script="search.py")
    assert done.returncode == 0, done.stderr
    [copy] = (store / "index").iterdir()
    assert json.loads((copy / "manifest.json").read_text())["facts"]["residual"] < 0.02
    [found] = (store / "selection").glob("patterns-sept*")
    exact = {path.name: path for path in (tiny.store / "selection").glob("patterns-sept*")}
    assert (found / "selection.parquet").read_bytes() == (exact[found.name] / "selection.parquet").read_bytes()


def test_an_index_without_its_numbers_is_refused(tiny: Tiny):
    done = run("index=ivf_sq8", "index.nprobe=99999", store=tiny.store)
    assert done.returncode == 78
    assert "index.nprobe=99999 must lie between 1 and index.nlist=16384" in done.stderr
