"""A pool's rows keep their images wherever its sources lie, and a row that is none is refused."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sept.data import pool as pool_module
from sept.data.images import ImageError
from sept.data.pool import Pool, write_manifest
from sept.data.sources.files import Entry
from sept.data.sources.folder import list_folder
from sept.data.sources.layouts import find_tars
from sept.data.sources.tars import list_tars
from sept.errors import ConfigError, DataError


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (5, 4), shade).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def roots(tmp_path) -> dict[str, Path]:
    """A folder of 3 images, shades 0 to 2, and two tars of 2, shades 10 to 13."""
    loose, tars = tmp_path / "loose", tmp_path / "tars"
    (loose / "deep").mkdir(parents=True)
    tars.mkdir()
    for shade, name in enumerate(("a.png", "deep/b.png", "é.png")):
        (loose / name).write_bytes(png(shade))
    for shard in range(2):
        with tarfile.open(tars / f"s-{shard}.tar", "w") as tar:
            for n in range(2):
                data = png(10 + 2 * shard + n)
                info = tarfile.TarInfo(f"{n}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return {"tars": tars, "loose": loose}


def entries_of(roots: dict[str, Path]) -> list[Entry]:
    return list_tars(find_tars(str(roots["tars"])), "tars") + list_folder(roots["loose"], "loose")


@pytest.fixture
def folder(tmp_path, roots) -> Path:
    (tmp_path / "artefact").mkdir()
    write_manifest(tmp_path / "artefact", entries_of(roots))
    return tmp_path / "artefact"


def test_every_row_gives_its_own_image(folder, roots):
    pool = Pool.open(folder, roots)
    assert len(pool) == 7
    assert [pool.key(row) for row in range(7)] == [
        *("s-0/0.png", "s-0/1.png", "s-1/0.png", "s-1/1.png"),
        *("a.png", "deep/b.png", "é.png"),
    ]
    for row, shade in enumerate((10, 11, 12, 13, 0, 1, 2)):
        assert pool.read(row) == png(shade)
        assert np.array_equal(pool.image(row), np.full((4, 5, 3), shade, np.uint8))
    assert pool.rows_of("tars").tolist() == [0, 1, 2, 3]
    assert pool.rows_of("loose").tolist() == [4, 5, 6]
    assert pool.rows_of("loose").dtype == np.int64


def test_facts_and_columns_of_the_manifest(tmp_path, roots):
    entries = entries_of(roots)
    assert write_manifest(tmp_path, iter(entries)) == {"rows": 7, "sources": {"tars": 4, "loose": 3}}
    table = pq.read_table(tmp_path / "pool.parquet")
    assert table.column_names == ["row", "source", "key", "shard", "offset", "size"]
    assert table["row"].to_pylist() == list(range(7))
    stored = zip(*(table[name].to_pylist() for name in Entry._fields), strict=True)
    assert [Entry(*values) for values in stored] == entries


def test_a_manifest_of_several_blocks_is_one_table(tmp_path, roots, monkeypatch):
    monkeypatch.setattr(pool_module, "ROWS_AT_ONCE", 3)
    write_manifest(tmp_path, entries_of(roots))
    pool = Pool.open(tmp_path, roots)
    assert pq.read_metadata(tmp_path / "pool.parquet").num_row_groups == 3
    assert [pool.read(row) for row in range(7)] == [png(shade) for shade in (10, 11, 12, 13, 0, 1, 2)]
    assert pool.rows_of("loose").tolist() == [4, 5, 6]


def test_the_same_entries_write_the_same_bytes(tmp_path, roots):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, entries_of(roots))
    assert (tmp_path / "one" / "pool.parquet").read_bytes() == (tmp_path / "two" / "pool.parquet").read_bytes()


def test_a_moved_source_keeps_its_rows(folder, roots, tmp_path):
    roots["loose"].rename(tmp_path / "moved")
    pool = Pool.open(folder, {**roots, "loose": tmp_path / "moved"})
    assert pool.read(5) == png(1)


def test_a_pool_goes_to_workers(folder, roots):
    pool = Pool.open(folder, roots)
    pool.read(0)
    size = len(pickle.dumps(pool))
    again = pickle.loads(pickle.dumps(pool))
    assert [again.read(row) for row in range(7)] == [pool.read(row) for row in range(7)]
    assert size < 1000, "columns and descriptors stay behind"


@pytest.mark.parametrize("row", [-1, 7, 1 << 40])
def test_rows_outside_the_pool_are_refused(row, folder, roots):
    pool = Pool.open(folder, roots)
    for read in (pool.key, pool.read, pool.image):
        with pytest.raises(IndexError, match="pool of 7 images"):
            read(row)


def test_numpy_rows_are_rows(folder, roots):
    pool = Pool.open(folder, roots)
    assert pool.read(pool.rows_of("loose")[1]) == png(1)


def test_an_unusable_image_is_named(folder, roots):
    (roots["loose"] / "deep" / "b.png").write_bytes(b"<html>".ljust(len(png(1))))
    with pytest.raises(ImageError, match=r"^deep/b\.png: not an image"):
        Pool.open(folder, roots).image(5)


def test_an_image_shorter_than_listed_is_no_skip_but_a_changed_source(folder, roots):
    (roots["loose"] / "deep" / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match="changed since it was listed") as caught:
        Pool.open(folder, roots).image(5)
    assert not isinstance(caught.value, ImageError)


def test_roots_must_be_those_of_the_manifest(folder, roots, tmp_path):
    with pytest.raises(ConfigError, match=r"sources \['loose', 'tars'\], but roots are given for \['tars'\]"):
        Pool.open(folder, {"tars": roots["tars"]})
    with pytest.raises(ConfigError, match="web"):
        Pool.open(folder, {**roots, "web": tmp_path})
    with pytest.raises(DataError, match="gone: no such folder, given as the root of pool source 'loose'"):
        Pool.open(folder, {**roots, "loose": tmp_path / "gone"})
    with pytest.raises(ConfigError, match="no source 'web'"):
        Pool.open(folder, roots).rows_of("web")


def test_a_missing_or_cut_manifest_is_named(folder, roots, tmp_path):
    with pytest.raises(DataError, match=r"pool\.parquet: no readable pool manifest"):
        Pool.open(tmp_path, roots)
    manifest = folder / "pool.parquet"
    manifest.write_bytes(manifest.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"pool\.parquet: no readable pool manifest"):
        Pool.open(folder, roots)


def test_an_empty_pool_is_refused(tmp_path):
    with pytest.raises(DataError, match="pool is empty"):
        write_manifest(tmp_path, [])
