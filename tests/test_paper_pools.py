"""The paper's pools by name, on miniatures of their layouts below SEPT_DATA."""

import hashlib
import io
import tarfile
from pathlib import Path

import official
import pytest
from conftest import TINY
from hydra import compose, initialize_config_dir

from sept.compose import CONF, load, register
from sept.data import locate
from sept.errors import DataError
from sept.pipeline import Pipeline
from sept.runtime.hardware import resolve
from sept.stages.pool import open_pool
from sept.store import Store

PHOTOS = [hashlib.md5(b"%d" % n).hexdigest() for n in range(6)]
ABSENT = 2  # of YFCC's photos
ROWS = {
    "in1k": {"": 4},
    "in22k": {"": 9},
    "yfcc100m": {"": 4},
    "in22k_intern": {"in22k": 9, "intern": 5},
    "sept155m": {"in22k": 9, "intern": 5, "yfcc100m": 4},
}


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "data"
    for n in range(4):
        official.put(root / "imagenet" / "train" / f"n{n % 2:08d}" / f"n{n % 2:08d}_{n}.JPEG", n % 2, n)
    for n in range(9):
        official.put(root / "imagenet22k" / f"n{n % 3:08d}" / f"n{n % 3:08d}_{n}.JPEG", n % 3, n)
    (root / "intern").mkdir()
    with tarfile.open(root / "intern" / "intern-000.tar", "w") as tar:
        for n in range(5):
            content = official.jpeg(7, n)
            member = tarfile.TarInfo(f"{n}.jpg")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for n, photo in enumerate(PHOTOS[ABSENT:]):
        official.put(root / "yfcc100m" / "data" / "images" / photo[:3] / photo[3:6] / f"{photo}.jpg", 8, n)
    official.write_text(root / "yfcc100m" / "yfcc100m_hash", "".join(f"{n}\t{h}\n" for n, h in enumerate(PHOTOS)))
    monkeypatch.setenv("SEPT_DATA", str(root))
    locate.identify.cache_clear()
    return root


def pipeline(*overrides: str) -> Pipeline:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        e = load(compose("config", [*TINY, *overrides]))
    return Pipeline(e, resolve(e.hardware))


@pytest.mark.parametrize("name", ROWS)
def test_a_pool_of_the_paper_has_its_images_in_the_order_of_its_sources(name, data, tmp_path):
    pipe, store = pipeline(f"pool={name}"), Store(tmp_path / "store")
    made = {f"pool{i}": store.make(step) for i, step in enumerate(pipe.pools)}
    pool = open_pool(made, pipe.pool_locations)
    assert len(pool) == sum(ROWS[name].values())
    keys = [pool.key(row) for row in range(len(pool))]
    if len(ROWS[name]) > 1:
        assert [key.split("/")[0] for key in keys] == [source for source, n in ROWS[name].items() for _ in range(n)]
    assert all(pool.image(row).shape == (32, 40, 3) for row in range(len(pool)))
    if "yfcc100m" in (name, *ROWS[name]):
        facts = made[f"pool{len(made) - 1}"].facts
        assert (facts["absent"], len(facts["named_absent"])) == (ABSENT, ABSENT)


def test_without_what_is_not_public_the_rest_is_a_pool(data):
    names = [place.name for place in pipeline("pool=sept155m", "pool.without=[intern]").pool_locations]
    assert names == ["in22k", "yfcc100m"]


@pytest.mark.parametrize(
    ("name", "gone", "told"),
    [
        ("in22k", "imagenet22k", "imagenet22k"),
        ("sept155m", "intern", "a-000.tar"),
        ("yfcc100m", "yfcc100m/yfcc100m_hash", "yfcc100m_dataset"),
    ],
)
def test_a_source_that_is_missing_is_named_with_its_layout(name, gone, told, data):
    (data / gone).rename(data / "gone")
    with pytest.raises(DataError) as refused:
        _ = pipeline(f"pool={name}").pools
    assert gone.split("/")[0] in str(refused.value)
    assert told in str(refused.value)
    assert "expected" in str(refused.value)
