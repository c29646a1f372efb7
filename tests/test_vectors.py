"""Vectors made elsewhere: read from .npy and parquet, scaled, searched without images, and refused in one line."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sept.app.search_report import show_selection
from sept.compose import experiment
from sept.data.sources import vectors as source
from sept.data.sources.vectors import open_vectors
from sept.errors import ConfigError, DataError
from sept.pipeline import Pipeline
from sept.results import choices
from sept.retrieval.features import Features
from sept.retrieval.selections import SELECTION, load_selection
from sept.runtime.hardware import resolve
from sept.store import Store

ROWS, DIM = 60, 6
SETTINGS = ("hardware.accelerator=cpu", "hardware.threads=1", "budget.images=8", "pretrain.batch_size=8")


def drawn(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32) * 7


def names(rows: int = ROWS) -> list[str]:
    return [f"images/{row:03d}.png" for row in range(rows)]


def npy(path: Path, vectors: np.ndarray, ids: list[str] | None = None) -> Path:
    np.save(path, vectors)
    path.with_suffix(".ids.txt").write_text("\n".join(names(len(vectors)) if ids is None else ids) + "\n")
    return path


def parquet(path: Path, vectors: np.ndarray, fixed: bool = False, rows: int = 25) -> Path:
    kind = pa.list_(pa.float32(), DIM) if fixed else pa.list_(pa.float32())
    columns = {"id": names(len(vectors)), "vector": pa.array(vectors.tolist(), kind), "url": [""] * len(vectors)}
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


def pipeline(pool: Path, query: Path, *overrides: str) -> Pipeline:
    given = ("pool=vectors", f"pool.path={pool}", "query=vectors", f"query.path={query}")
    e = experiment([*given, *SETTINGS, *overrides])
    return Pipeline(e, resolve(e.hardware))


def queries(folder: Path, count: int = 2) -> Path:
    return npy(folder / "Q.npy", drawn()[:count] * 2, [f"q{i}" for i in range(count)])


def features(tmp_path: Path, pool: Path, *overrides: str) -> Features:
    p = pipeline(pool, queries(tmp_path), *overrides)
    return Features.open(Store(tmp_path / "store").make(p.features[0]).path)


@pytest.mark.parametrize(
    ("write", "how"),
    [
        (npy, {}),
        (parquet, {}),
        (parquet, {"fixed": True}),
        (parquet, {"rows": 1000}),
    ],
)
def test_a_file_of_vectors_becomes_features_of_unit_length_in_its_order(tmp_path, monkeypatch, write, how):
    monkeypatch.setattr(source, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr("sept.stages.vectors.LEAST_ROWS_PER_SHARD", 16)
    vectors = drawn()
    found = features(tmp_path, write(tmp_path / f"P.{write.__name__}", vectors, **how))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.array_equal(found.take_half(np.arange(ROWS)), unit.astype(np.float16))
    assert len(found.shards) == 4


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_floats_of_any_precision_are_taken(tmp_path, kind):
    vectors = drawn().astype(kind)
    found = features(tmp_path, npy(tmp_path / "P.npy", vectors)).take(np.arange(ROWS))
    assert np.allclose(found, vectors / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True), atol=1e-3)


def test_any_rows_of_a_parquet_file_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "ROWS_AT_ONCE", 7)
    vectors, file = drawn(), open_vectors(str(parquet(tmp_path / "P.parquet", drawn())))
    for first, last in ((0, 3), (3, 20), (30, 60), (24, 26), (59, 60)):
        assert np.array_equal(np.concatenate([*file.read(first, last)]), vectors[first:last])


def test_a_parquet_file_is_read_on_row_by_row(tmp_path):
    """What is left of a block is kept once, not as one more layer for every step: thousands overflow a stack."""
    vectors = np.random.default_rng(0).normal(size=(4000, 3)).astype(np.float32)
    file = open_vectors(str(parquet(tmp_path / "P.parquet", vectors, rows=4000)))
    found = [np.concatenate([*file.read(row, row + 1)]) for row in range(len(vectors))]
    assert np.array_equal(np.concatenate(found), vectors)


def test_zero_vectors_are_left_out_and_counted_up_to_a_share(tmp_path):
    vectors = drawn()
    vectors[[0, 4]] = 0
    pool = npy(tmp_path / "P.npy", vectors)
    assert features(tmp_path, pool).skipped.tolist() == [0, 4]
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"2 of the pool's 60 images .* 'images/000\.png' \(a zero vector\)"):
        features(tmp_path / "other", pool, "pool.max_unreadable=0.01")


def test_the_images_nearest_to_the_queries_are_selected_with_their_names(tmp_path):
    p = pipeline(npy(tmp_path / "P.npy", drawn()), queries(tmp_path))
    store = Store(tmp_path / "store")
    made = store.make(p.selection)
    assert {step.stage for step in p.selection.walk()} == {"pool", "features", "queries", "selection"}
    table = load_selection(made.path / SELECTION)
    unit = drawn() / np.linalg.norm(drawn(), axis=1, keepdims=True)
    best = np.argsort(-(unit[:2] @ unit.T), axis=1)
    assert table["row"].to_pylist()[:2] == [0, 1]
    assert {*table["row"].to_pylist()} <= {*best[:, :8].ravel().tolist()}
    assert table["pool_key"].to_pylist() == [names()[row] for row in table["row"].to_pylist()]
    assert {*table["query"].to_pylist()} == {"q0", "q1"}
    assert (choices(p.e)["query"], choices(p.e)["retriever"]) == ("vectors", None)


def test_a_search_without_images_shows_a_table_and_one_with_images_a_gallery(tmp_path):
    p, store = pipeline(npy(tmp_path / "P.npy", drawn()), queries(tmp_path)), Store(tmp_path / "store")
    store.make(p.selection)
    told = show_selection(p.e, p, store, tmp_path / "out")
    assert "selected 8 of 60 pool images for 2 vectors of" in told
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == [SELECTION]
    images(tmp_path)
    show_selection(p.e, p, store, tmp_path / "seen")
    assert {path.suffix for path in (tmp_path / "seen").rglob("*.*")} == {".parquet", ".png", ".html"}


def images(folder: Path) -> None:
    (folder / "images").mkdir()
    for row, name in enumerate(names()):
        Image.new("RGB", (40, 40), (row, 2 * row, 3 * row)).save(folder / name)


def test_names_that_are_paths_of_images_can_be_pre_trained_on(tmp_path):
    images(tmp_path)
    pool = npy(tmp_path / "P.npy", drawn(), [str((tmp_path / name).absolute()) for name in names()])
    p, store = pipeline(pool, queries(tmp_path)), Store(tmp_path / "store")
    packed = p.pretrain.inputs["subset"]
    found = store.make(packed)
    rows = load_selection(store.find(packed.inputs["selection"]).path / SELECTION)["row"].to_pylist()
    pixels = np.fromfile(found.path / "pixels.bin", np.uint8).reshape(len(rows), -1, 3)
    assert pixels[:, 0].tolist() == [[row, 2 * row, 3 * row] for row in rows]


def test_names_that_are_no_paths_are_refused_before_a_pre_training(tmp_path):
    p = pipeline(npy(tmp_path / "P.npy", drawn()), queries(tmp_path))
    with pytest.raises(DataError, match=r"'images/000\.png' is not the path of an image"):
        _ = p.run


def test_a_file_that_moved_has_the_key_it_had(tmp_path):
    pool, query = npy(tmp_path / "P.npy", drawn()), queries(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    for path in tmp_path.glob("*.*"):
        shutil.copy(path, other)
    assert pipeline(pool, query).selection.key == pipeline(other / "P.npy", other / "Q.npy").selection.key
    changed = npy(tmp_path / "changed.npy", drawn(seed=1))
    assert pipeline(pool, query).selection.key != pipeline(changed, query).selection.key


def broken(row: int, value: float) -> np.ndarray:
    vectors = drawn()
    vectors[row, 1] = value
    return vectors


def uneven(path: Path) -> Path:
    lists = drawn().tolist()
    lists[31] = lists[31][:-2]
    pq.write_table(pa.table({"id": names(), "vector": lists}), path)
    return path


REFUSED = {
    "NaN": (
        lambda path: npy(path / "P.npy", broken(33, np.nan)),
        r"P\.npy: the vector of row 33 \('images/033\.png'\) holds NaN or infinity",
    ),
    "infinity": (lambda path: parquet(path / "P.parquet", broken(3, np.inf)), r"row 3 \('images/003\.png'\) holds NaN"),
    "too few names": (lambda path: npy(path / "P.npy", drawn(), names(59)), r"P\.ids\.txt: 59 lines for the 60 vector"),
    "a blank name": (
        lambda path: npy(path / "P.npy", drawn(), ["", *names(59)]),
        r"P\.ids\.txt, line 1: is blank, where the name of a vector of P\.npy has to be",
    ),
    "a name twice": (
        lambda path: npy(path / "P.npy", drawn(), [*names(59), names()[7]]),
        r"P\.ids\.txt: names 'images/007\.png' twi",
    ),
    "whole numbers": (
        lambda path: npy(path / "P.npy", drawn().astype(int)),
        r"holds int64 of shape \(60, 6\); vectors",
    ),
    "one dimension": (lambda path: npy(path / "P.npy", drawn().ravel(), names()), r"holds float32 of shape \(360,\)"),
    "another length": (
        lambda path: uneven(path / "P.parquet"),
        r"the vector of row 31 \('images/031\.png'\) has 4 numbers, others 6",
    ),
    "no file": (lambda path: path / "P.npy", r"P\.npy: no such file of vectors"),
    "another kind": (
        lambda path: npy(path / "P.npy", drawn()).with_suffix(".ids.txt"),
        r"read from \.npy and \.parquet",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_of_no_use_is_told_in_one_line(tmp_path, case):
    write, message = REFUSED[case]
    pool = write(tmp_path)
    with pytest.raises(DataError, match=message) as refused:
        Store(tmp_path / "store").make(pipeline(pool, queries(tmp_path)).selection)
    assert "\n" not in str(refused.value)


def test_names_beside_the_vectors_are_needed(tmp_path):
    npy(tmp_path / "P.npy", drawn()).with_suffix(".ids.txt").unlink()
    with pytest.raises(DataError, match=re.escape("no P.ids.txt beside it")):
        _ = pipeline(tmp_path / "P.npy", queries(tmp_path)).selection


def test_columns_of_another_name_are_told(tmp_path):
    pq.write_table(pa.table({"key": names(), "embedding": drawn().tolist()}), tmp_path / "P.parquet")
    with pytest.raises(DataError, match="needs the columns id and vector; it has key, embedding"):
        _ = pipeline(tmp_path / "P.parquet", queries(tmp_path)).selection


def test_queries_of_another_width_are_refused(tmp_path):
    query = npy(tmp_path / "Q.npy", drawn()[:, :4])
    with pytest.raises(ConfigError, match=r"vectors of 4 numbers and pool\.path=.* of 6"):
        _ = pipeline(npy(tmp_path / "P.npy", drawn()), query).selection


def test_a_query_that_is_zero_is_refused(tmp_path):
    query = npy(tmp_path / "Q.npy", np.zeros((2, DIM), np.float32))
    with pytest.raises(DataError, match=r"row 0 \('images/000\.png'\) is a zero vector"):
        Store(tmp_path / "store").make(pipeline(npy(tmp_path / "P.npy", drawn()), query).queries)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("pool=vectors", "pool.path=P.npy"), "compared with each other"),
        (("query=vectors", "query.path=Q.npy"), "compared with each other"),
        (("pool=vectors", "pool.path=P.npy", "query=vectors"), "query.path is not set"),
        (("pool=vectors", "query=vectors", "query.path=Q.npy"), "pool.path is not set"),
        (("pool=vectors", "pool.path=P.npy", "query=vectors", "query.path=Q.npy", "leak=remove"), "compares images"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        experiment([*SETTINGS, *overrides])
