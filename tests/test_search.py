"""search.py as a person runs it, on the tiny store."""

from pathlib import Path

import pytest
from conftest import Tiny, run
from PIL import Image

from sept.retrieval.selections import load_selection


@pytest.fixture(scope="module")
def selected(tiny: Tiny):
    return run("query.top=3", store=tiny.store, script="search.py")


def written(done, tiny: Tiny) -> Path:
    """The folder that the output names."""
    line = next(line for line in done.stdout.splitlines() if line.endswith("gallery.html"))
    return tiny.store.parent / Path(line.strip()).parent


def test_search_says_what_was_selected(selected, tiny: Tiny):
    assert selected.returncode == 0, selected.stderr
    assert "selected 32 of 400 pool images for 80 images of patterns_a" in selected.stdout
    for fact in ("depth", "similarity median", "images per query max"):
        assert fact in selected.stdout


def test_search_writes_the_selection_in_the_order_chosen(selected, tiny: Tiny):
    table = load_selection(written(selected, tiny) / "selection.parquet")
    assert table.num_rows == 32
    assert table["rank"].to_pylist() == sorted(table["rank"].to_pylist())
    assert len(set(table["row"].to_pylist())) == 32


def test_search_draws_a_gallery_as_picture_and_as_a_page_that_loads_nothing(selected, tiny: Tiny):
    with Image.open(written(selected, tiny) / "gallery.png") as picture:
        assert picture.width > picture.height / 10
        assert len(picture.getcolors(2**24)) > 100
    page = (written(selected, tiny) / "gallery.html").read_text()
    assert (
        page.count("data:image") == 10 * (1 + 3) + 3 + 3 + 4
    )  # and the last taken, random ones, and queries that brought nothing
    assert "selected last" in page
    assert "brought nothing" in page
    assert page.count("<svg") == 3
    assert "random images of the pool" in page
    assert ">0.000" not in page  # random images were not looked up
    assert "http" not in page


def test_search_looks_a_picture_up_with_its_best_matches(tiny: Tiny):
    example = next((tiny.folder("task") / "images" / "train").rglob("*.jpg"))
    done = run(f"query={example}", "top=2", store=tiny.store, script="search.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == example.name
    assert len([line for line in done.stdout.splitlines() if line.startswith("  0.") or line.startswith("  1.")]) == 2
    assert (written(done, tiny) / "gallery.png").is_file()


def test_search_refuses_a_table(tmp_path):
    done = run("+table=quickstart", store=tmp_path / "store", script="search.py")
    assert done.returncode == 78
    told = "error: +table=quickstart: search.py looks at one selection; tables are made by train.py"
    assert done.stderr.splitlines() == [told]


def test_search_refuses_a_query_that_is_not_there(tiny: Tiny):
    done = run("query=/nowhere.jpg", store=tiny.store, script="search.py")
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1] == "error: query=/nowhere.jpg: no such image or folder"
