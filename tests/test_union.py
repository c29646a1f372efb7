"""A pool of several sources: rows one after the other, and a pool that grows or moves embeds nothing twice."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import TINY, Tiny
from hydra import compose, initialize_config_dir
from PIL import Image

from sept.compose import CONF, check_overrides, load, register
from sept.data import locate
from sept.data.pool import ConcatPool, Pool, write_manifest
from sept.data.sources.scan import scan
from sept.errors import ConfigError
from sept.pipeline import Pipeline
from sept.retrieval.features import Features
from sept.runtime.hardware import resolve
from sept.stages.selection import SELECTION
from sept.store import Store

SHIPPED = ["retriever=ibot_micro", "retriever.preprocess.resize=32"]


def images(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng((seed, i)).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return folder


def pool(root: Path, artefact: Path) -> Pool:
    artefact.mkdir()
    write_manifest(artefact, scan("folder", str(root), locate.FOLDER))
    return Pool.open(artefact, {locate.FOLDER: root})


@pytest.fixture
def union(tmp_path) -> ConcatPool:
    parts = {name: pool(images(tmp_path / name, count, count), tmp_path / f"{name}-table") for name, count in PARTS}
    return ConcatPool(parts)


PARTS = [("b", 3), ("a", 2), ("c", 4)]


def test_rows_are_those_of_the_parts_in_their_order(union):
    assert len(union) == 9
    keys = [f"{name}/{i:03d}.png" for name, count in PARTS for i in range(count)]
    assert [union.key(row) for row in range(9)] == keys
    for row, key in enumerate(keys):
        name, file = key.split("/")
        assert np.array_equal(union.image(row), union.parts[name].image(int(file[:3])))
    for row in (-1, 9):
        with pytest.raises(IndexError):
            union.image(row)


def test_rows_of_a_part_or_of_a_source_within_parts(union):
    assert union.rows_of("a").tolist() == [3, 4]
    assert union.rows_of(locate.FOLDER).tolist() == list(range(9))
    with pytest.raises(ConfigError, match="no source 'd'; it has"):
        union.rows_of("d")


def test_a_union_can_be_sent_to_data_workers(union):
    again = pickle.loads(pickle.dumps(union))
    assert np.array_equal(again.image(4), union.image(4))
    alone = ConcatPool({"only": union.parts["a"]})
    assert alone.key(1) == "001.png"


def pipeline(store: Path, *overrides: str) -> Pipeline:
    locate.identify.cache_clear()
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*TINY, *SHIPPED, *overrides, f"store.root={store}"])
    e = load(cfg)
    return Pipeline(e, resolve(e.hardware))


def grown(store: Path, without: list[str], **folders: Path) -> Pipeline:
    """A union of folders given on the command line, as a person would."""
    sources = [f"+pool.sources.{name}={{kind:folder,path:{path}}}" for name, path in folders.items()]
    left_out = ",".join(["in22k", "intern", *without])
    check_overrides(sources)
    return pipeline(store, "pool=in22k_intern", "pool.curated=null", f"pool.without=[{left_out}]", *sources)


@pytest.fixture
def first(tmp_path) -> Path:
    return images(tmp_path / "first", 35, 1)


@pytest.fixture
def second(tmp_path) -> Path:
    return images(tmp_path / "second", 30, 2)


def test_a_second_source_embeds_its_own_images_alone(tmp_path, first, second, tiny: Tiny):
    shutil.copytree(tiny.store / "task", tmp_path / "store" / "task")
    shutil.copy(tiny.store / "store.json", tmp_path / "store" / "store.json")
    store = Store(tmp_path / "store")
    alone = grown(store.root, [], first=first)
    [before] = [store.make(step) for step in alone.features]
    both = grown(store.root, [], first=first, second=second)
    todo = [str(step.slug) for step in store.missing(both.selection) if step.stage in ("pool", "features")]
    assert todo == ["in22k_intern-second", "in22k_intern-second-ibot_micro"]
    selection = store.make(both.selection)
    features = Features.concatenate([Features.open(store.make(step).path) for step in both.features])
    assert features.rows == 65
    np.testing.assert_array_equal(features.take(range(35)), Features.open(before.path).take(range(35)))
    table = pq.read_table(selection.path / SELECTION)
    keys = dict(zip(table["row"].to_pylist(), table["pool_key"].to_pylist(), strict=True))
    assert len(keys) == 32
    assert all(
        key == (f"first/{row:03d}.png" if row < 35 else f"second/{row - 35:03d}.png") for row, key in keys.items()
    )


def test_a_moved_source_embeds_nothing(tmp_path, first, second):
    store = Store(tmp_path / "store")
    before = grown(store.root, [], first=first, second=second)
    for step in before.features:
        store.make(step)
    shutil.move(second, tmp_path / "elsewhere")
    after = grown(store.root, [], first=first, second=tmp_path / "elsewhere")
    assert [store.missing(step) for step in after.features] == [[], []]


def test_the_order_of_sources_and_what_is_left_out_are_in_the_selections_key(tmp_path, first, second):
    def key(*args, **kwargs):
        return grown(tmp_path / "store", *args, **kwargs).selection.key

    both = key([], first=first, second=second)
    assert both != key([], second=second, first=first)  # other rows
    assert key(["second"], first=first, second=second) == key([], first=first) != both


def test_a_source_that_is_not_there_is_named_and_may_be_left_out(tmp_path, first):
    with pytest.raises(ConfigError, match=r"pool\.sources\.more\.path is not set; set it, or pool\.without=\[more\]"):
        pipeline(tmp_path / "s", "pool=in22k_intern", "+pool.sources.more={kind:folder,path:null}")
    with pytest.raises(ConfigError, match=r"pool\.without=nope"):
        pipeline(tmp_path / "s", "pool=in22k_intern", "pool.without=[nope]")
    with pytest.raises(ConfigError, match=r"pool\.sources\.more: paht given, needs \{kind:KIND,path:PATH\}"):
        pipeline(tmp_path / "s", "pool=in22k_intern", "+pool.sources.more={kind:folder,paht:x}")
    with pytest.raises(ConfigError, match="no source left"):
        pipeline(tmp_path / "s", "pool=in22k_intern", "pool.without=[in22k,intern]")
