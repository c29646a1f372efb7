"""The page of a selection: a story in sentences, drawings, the meaning of every figure; and the export."""

import csv
import re
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sept import compose
from sept.app.export import export
from sept.app.making import make
from sept.app.search_report import show_selection
from sept.app.story import MEANING, story
from sept.errors import ConfigError
from sept.retrieval.drawings import histogram, plane, scatter
from tests.conftest import ROOT, TINY

sys.path.insert(0, str(ROOT))
from sept.commands import search

FACTS = {
    "images": 100,
    "queries": 10,
    "depth": 12,
    "similarity_min": 0.4,
    "similarity_median": 0.7,
    "images_per_query_min": 1,
    "images_per_query_median": 10.0,
    "images_per_query_max": 20,
    "queries_without_images": 0,
    "a_distance_selection": 0.3,
    "a_distance_random": 1.5,
    "copies_of_test_images": 0,
    "near_duplicates": 2,
}


def worries(**changes):
    return story("birds", "hog", 5000, FACTS | changes, 0.1)["What to worry about"]


def test_a_good_selection_is_told_in_sentences_without_a_worry():
    told = story("birds", "hog", 5000, FACTS, 0.1)
    assert told["What you asked"] == [
        "The 100 of 5,000 pool images that are most like 10 images of birds, as hog sees them."
    ]
    assert "0.700" in told["How good it is"][0]
    assert "much nearer to the task than random" in told["How good it is"][1]
    assert worries() == ["Nothing was noticed in these figures."]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"copies_of_test_images": 3}, "leak=remove"),
        ({"near_duplicates": 40}, "selector.min_distance"),
        ({"queries_without_images": 2}, "brought nothing"),
        ({"a_distance_selection": 1.45}, "advise=true"),
    ],
)
def test_each_worry_names_what_helps(changes, word):
    [line] = worries(**changes)
    assert word in line


def test_a_selector_without_lists_is_told_too():
    facts = {"images": 5, "queries": 2, "copies_of_test_images": 0, "near_duplicates": None}
    assert story("birds", "hog", 50, facts, None)["What was found"] == ["5 images."]


def test_distributions_of_different_sizes_are_drawn_with_equal_areas():
    drawn = histogram({"one": np.linspace(0, 1, 10), "a & b": np.linspace(0, 1, 1000)})
    heights = [float(each) for each in re.findall(r'<rect x="[\d.]+" y="[\d.]+" width="14.0" height="([\d.]+)"', drawn)]
    assert sum(heights[:40]) == pytest.approx(sum(heights[40:]), rel=0.01)
    assert "a &amp; b" in drawn


def test_the_map_keeps_what_is_apart_apart():
    rng = np.random.default_rng(0)
    pool = rng.normal(0, [5, 3, 0.1], (500, 3))
    _, axes = plane(pool)
    np.testing.assert_allclose(np.abs(axes), np.eye(3)[:, :2], atol=0.1)
    drawn = scatter({"pool": pool @ axes, "selection": pool[:20] @ axes, "task": pool[:3] @ axes})
    assert drawn.count("<circle") == 523


class Pool:
    """Of two images, one of them in an archive."""

    def __init__(self, folder):
        self.file = folder / "a.png"
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(self.file)

    def path(self, row):
        return self.file if row == 0 else None

    def read(self, row):
        return self.file.read_bytes()

    def key(self, row):
        return f"part/{row}.png"


TABLE = pa.table(
    {
        "row": [0, 1],
        "pool_key": ["a.png", "x/b c.png"],
        "rank": [0, None],
        "query": ["q", None],
        "similarity": [0.5, None],
    }
)


@pytest.mark.parametrize("copies", [False, True])
def test_an_export_holds_links_or_copies_and_a_list_that_other_tools_read(tmp_path, copies):
    told = export(Pool(tmp_path), TABLE, tmp_path / "out", copies)
    with open(tmp_path / "out/labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["filepath"] for row in rows] == ["data/000000-a.png", "data/000001-b-c.png"]
    assert [row["similarity"] for row in rows] == ["0.5", ""]
    for row in rows:
        with Image.open(tmp_path / "out" / row["filepath"]) as image:
            assert image.size == (4, 4)
    assert (tmp_path / "out/data/000000-a.png").is_symlink() != copies
    assert ("copies" if copies else "1 links and copies") in told
    with pytest.raises(ConfigError, match="not an empty folder"):
        export(Pool(tmp_path), TABLE, tmp_path / "out", copies)


@pytest.mark.parametrize("also", [["query.path=x.png"], ["init=rand_init"]])
def test_only_a_selection_is_exported(also):
    with pytest.raises(ConfigError, match="export=there writes the images of a selection"):
        compose.experiment(["export=there", *also])


def test_an_export_is_refused_before_any_work_where_something_is(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(ConfigError, match="not an empty folder"):
        search.search(compose.experiment([f"export={tmp_path}", f"store.root={tmp_path / 'store'}"]))
    assert not (tmp_path / "store").exists()


def test_every_figure_of_a_selection_has_a_meaning(tiny):
    import json

    named = {
        name
        for stage in ("selection", "copies")
        for path in (tiny.store / stage).glob("*/manifest.json")
        for name in json.loads(path.read_text())["facts"]
    }
    assert named - {"flops"} <= MEANING.keys(), named - MEANING.keys()


def test_random_images_are_exported_too(tiny, tmp_path):
    overrides = [*TINY, f"store.root={tiny.store}", "init=random", "budget.images=5", f"export={tmp_path / 'out'}"]
    e = compose.experiment(overrides)
    pipeline, store = make(e, lambda steps: steps.chosen, selection_only=True)
    told = show_selection(e, pipeline, store, tmp_path / "outputs")
    assert "5 images" in told.splitlines()[-1]
    assert len([*(tmp_path / "out/data").iterdir()]) == 5
