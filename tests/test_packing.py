"""Packing decodes each chosen image once, on any number of threads alike, and replaces what cannot be decoded."""

import io
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sept.data import images as decoders
from sept.data.locate import Location
from sept.data.pool import ConcatPool, Pool, write_manifest
from sept.data.sources.folder import list_folder
from sept.data.sources.reader import Reader
from sept.data.subset import Subset
from sept.errors import ConfigError, DataError
from sept.retrieval.copies import LeakCheck, TestImages, first_alike
from sept.retrieval.fingerprints import FILE, LUMA, THUMBNAIL, Thumbnails, area_means, thumbnails
from sept.retrieval.selections import SELECTION, save_selection
from sept.runtime.hardware import Runtime
from sept.runtime.threads import in_order
from sept.selectors import RandomSubset
from sept.stages import subset
from sept.stages.draws import RandomSpec, SourceSpec, draws
from sept.stages.selection import build as select

IMAGES, DAMAGED = 40, (3, 11, 12, 30)


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, dict[str, Any], list[Location]]:
    """A pool of two folders of JPEGs of two sizes, some damaged: its folder, and how stages are given it."""
    folder, made = tmp_path / "photos", tmp_path / "pool"
    made.mkdir()
    for n in range(IMAGES):
        path = folder / ("some" if n < 25 else "more") / f"{n:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        noise = np.random.default_rng(n).integers(0, 256, (6, 8, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((96, 64 + n % 2)).save(stream, "JPEG")
        path.write_bytes(b"no image" if n in DAMAGED else stream.getvalue())
    write_manifest(made, list_folder(folder, "folder"))
    inputs = {"pool0": SimpleNamespace(path=made, facts={"sources": {"folder": IMAGES}})}
    return folder, inputs, [Location("folder", str(folder), "folder")]


def pack(out: Path, world: Any, spec: Any, threads: int = 1, tolerated: float | None = 0.5) -> dict[str, Any]:
    _, inputs, locations = world
    chosen = out / "selection"
    chosen.mkdir(parents=True, exist_ok=True)
    select(chosen, inputs, spec=spec, locations=locations)
    given = inputs | {"selection": SimpleNamespace(path=chosen)}
    return subset.build(
        out,
        given,
        side=32,
        locations=locations,
        find_draws=lambda pool: draws(spec, pool),
        max_unreadable=tolerated,
        threads=threads,
    )


def at_random(budget: int) -> RandomSpec:
    return RandomSpec(RandomSubset("random"), budget, 5)


def files(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("pixels.bin", "index.npy", FILE)]


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_pack_the_same_bytes_as_one(threads, world, tmp_path):
    facts = [pack(tmp_path / f"{n}", world, at_random(20), n) for n in (1, threads)]
    assert facts[0] == facts[1]
    assert files(tmp_path / "1") == files(tmp_path / f"{threads}")


def test_each_chosen_image_is_read_and_decoded_once(world, tmp_path, monkeypatch):
    read: Counter[str] = Counter()
    decoded, turn = [], threading.Lock()
    reading, decoding = Reader.read, decoders.decode

    def counted(self: Reader, shard: str, offset: int, size: int) -> bytes:
        with turn:
            read[shard] += 1
        return reading(self, shard, offset, size)

    def seen(data: bytes, least_side: int | None = None) -> np.ndarray:
        with turn:
            decoded.append(data)
        return decoding(data, least_side)

    monkeypatch.setattr(Reader, "read", counted)
    monkeypatch.setattr("sept.data.pool.decode", seen)
    facts = pack(tmp_path / "out", world, at_random(20), 3)
    chosen = Thumbnails.open(tmp_path / "out")
    assert TestImages(["a"], chosen.take([0])).shown_by(chosen)[0] == "a"
    assert first_alike(chosen).tolist() == list(range(20))
    assert set(read.values()) == {1}
    assert len(decoded) == len(read) == 20 + facts["skipped"]


def test_damaged_images_of_a_random_subset_are_replaced_by_the_next_in_its_order(world, tmp_path):
    packed = {}
    for budget in (10, 20, IMAGES - len(DAMAGED)):
        facts = pack(tmp_path / f"{budget}", world, at_random(budget))
        packed[budget] = Subset.open(tmp_path / f"{budget}").ids.tolist()
        assert facts["images"] == budget == len(set(packed[budget]))
        assert facts["skipped"] == len(facts["unreadable"])
    [whole] = draws(at_random(IMAGES), pool_of(world))
    pool = pool_of(world)
    readable = [row for row in whole.first().tolist() if int(Path(pool.key(row)).stem) not in DAMAGED]
    assert all(rows == readable[:budget] for budget, rows in packed.items())


def test_a_pool_with_too_few_readable_images_is_told(world, tmp_path):
    with pytest.raises(ConfigError, match=r"budget\.images=38 but the pool holds only 36 readable images"):
        pack(tmp_path / "out", world, at_random(38))


def test_beyond_the_tolerated_share_packing_fails_and_goes_on_once_mended(world, tmp_path):
    with pytest.raises(DataError, match=r"of the pool's 40 images are unreadable, more than pool\.max_unreadable=0"):
        pack(tmp_path / "out", world, SourceSpec(None), 2, tolerated=0.01)
    facts = pack(tmp_path / "out", world, SourceSpec(None), 2)
    assert (facts["images"], facts["skipped"]) == (IMAGES - len(DAMAGED), len(DAMAGED))
    pack(tmp_path / "fresh", world, SourceSpec(None))
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_thumbnails_are_area_means_of_the_whole_image():
    pixels = np.random.default_rng(0).integers(0, 256, (47, 61, 3)).astype(np.uint8)
    rows, columns = area_means(47, 0, 47, THUMBNAIL), area_means(61, 0, 61, THUMBNAIL)
    made = thumbnails([pixels])
    assert np.array_equal(made.grey[0], np.rint(rows @ (pixels.astype(np.float32) @ LUMA) @ columns.T))
    assert np.allclose(made.colour[0], pixels.mean((0, 1)), rtol=0, atol=1e-4)


def test_rows_that_show_a_test_image_are_told_whatever_the_threads(world):
    pool = pool_of(world)
    rows = np.array([row for row in range(len(pool)) if int(Path(pool.key(row)).stem) not in DAMAGED])
    tests = TestImages(["x", "y"], thumbnails([pool.image(int(rows[4])), pool.image(int(rows[9]))[:, ::-1]]))
    for threads in (1, 3):
        found = LeakCheck(pool, tests, Runtime(threads=threads))(rows)
        assert np.flatnonzero(found).tolist() == [4, 9]


def test_work_comes_in_order_and_an_error_in_its_turn():
    results = in_order(lambda n: 12 // (n - 6), range(12), 4)
    assert [next(results) for _ in range(6)] == [12 // (n - 6) for n in range(6)]
    with pytest.raises(ZeroDivisionError):
        next(results)


def pool_of(world: Any) -> ConcatPool:
    folder, inputs, _ = world
    return ConcatPool({"folder": Pool.open(inputs["pool0"].path, {"folder": folder})})


def test_damage_in_a_selection_by_likeness_is_an_error_that_names_the_image(world, tmp_path):
    """Its images were decoded before, to be embedded."""
    _, inputs, locations = world
    pool = pool_of(world)
    rows = np.array([row for row in range(len(pool)) if int(Path(pool.key(row)).stem) in (1, 3, 5)])
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    save_selection(chosen / SELECTION, rows, [pool.key(row) for row in rows])
    given = inputs | {"selection": SimpleNamespace(path=chosen)}
    with pytest.raises(DataError, match=r"some/03\.jpg: not an image"):
        subset.build(
            chosen,
            given,
            side=32,
            locations=locations,
            find_draws=lambda pool: None,
            max_unreadable=None,
            threads=2,
        )
