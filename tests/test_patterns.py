"""The embedded world: pure drawing, honest pools, tasks apart from the pool."""

import csv
import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sept.data.patterns.domains import DOMAINS, TARGETS, classes, draw
from sept.data.patterns.drawing import MIXTURES, draw_pool, draw_task
from sept.data.settings import SYNTHETIC_POOLS
from sept.errors import ConfigError

IMAGES = 600


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("pool")
    return folder, draw_pool(folder, "patterns", IMAGES, 32, seed=3, workers=1)


def labels(folder: Path) -> list[dict[str, str]]:
    with open(folder / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_world_is_wide_enough():
    structured = [d for d in DOMAINS if classes(d) > 1]
    assert len(structured) >= 8
    assert len(set(DOMAINS) - set(structured)) == 1
    assert sum(map(classes, structured)) >= 120
    assert len(TARGETS) == 3
    assert all(classes(d) >= 16 for d in TARGETS)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(DOMAINS), st.integers(0, 15), st.integers(24, 80), st.integers(0, 9), st.integers(0, 10**9))
def test_drawing_is_a_pure_function_of_its_arguments(domain, label, side, seed, index):
    label %= classes(domain)
    image = draw(domain, label, side, seed, index)
    assert image.shape == (side, side, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, draw(domain, label, side, seed, index))
    assert not np.array_equal(image, draw(domain, label, side, seed, index + 1))
    assert not np.array_equal(image, draw(domain, label, side, seed + 1, index))


@pytest.mark.parametrize("domain", TARGETS)
def test_classes_do_not_differ_in_their_mean_colour(domain):
    """A probe of nothing but colour statistics stays far from naming the class."""
    per_class, names = 24, classes(domain)
    images = np.array([[draw(domain, c, 32, 0, i) for i in range(2 * per_class)] for c in range(names)], float)
    colour = np.concatenate([images.mean((2, 3)), images.std((2, 3))], -1)  # (C, n, 6)
    centres = colour[:, :per_class].mean(1)
    scale = colour[:, :per_class].std((0, 1))
    gaps = ((colour[:, per_class:, None] - centres) / scale) ** 2
    right = gaps.sum(-1).argmin(-1) == np.arange(names)[:, None]
    assert right.mean() < 0.4


@pytest.mark.parametrize(("domain", "figure_is_brighter"), [("facades", True), ("glyphs", False)])
def test_a_domain_keeps_its_polarity(domain, figure_is_brighter):
    """The ground covers the frame's majority, so its side of the median tells which of the two is brighter."""
    skews = []
    for index in range(40):
        grey = draw(domain, index % 16, 32, 0, index).mean(-1)
        middle = (np.percentile(grey, 3) + np.percentile(grey, 97)) / 2
        skews.append(np.mean(grey > middle) < 0.5)
    assert np.mean(skews) > 0.6 if figure_is_brighter else np.mean(skews) < 0.4


def test_a_pool_has_the_declared_mixture(pool):
    folder, counts = pool
    rows = labels(folder)
    assert len(rows) == IMAGES == counts["curated"] + counts["wild"]
    held = Counter(r["domain"] for r in rows)
    assert held == {d: counts[d] for d in DOMAINS}
    assert all(0 < held[d] < 0.09 * IMAGES for d in TARGETS)
    curated = Counter(r["domain"] for r in rows if r["shard"].startswith("curated-"))
    assert set(curated) == {d for d in DOMAINS if classes(d) > 1}
    assert len(set(curated.values())) == 1
    assert 0.2 * IMAGES < curated.total() < 0.3 * IMAGES


def test_a_wild_pool_is_half_junk_and_has_no_curated_part(tmp_path):
    counts = draw_pool(tmp_path, "patterns_wild", IMAGES, 32, seed=3, workers=1)
    assert (counts["curated"], counts["wild"], counts["junk"]) == (0, IMAGES, IMAGES // 2)
    assert [counts[d] for d in TARGETS] == [24, 24, 24]
    assert not list(tmp_path.glob("curated-*"))
    assert Counter(r["domain"] for r in labels(tmp_path)) == {d: counts[d] for d in DOMAINS}


def test_every_kind_of_drawn_pool_has_a_mixture():
    assert set(SYNTHETIC_POOLS) == set(MIXTURES)


def test_shards_hold_readable_jpegs_in_a_shuffled_order(pool):
    folder, _ = pool
    rows = labels(folder)
    named = {(r["shard"], r["member"]) for r in rows}
    found = set()
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                found.add((shard.name, member.name))
                with Image.open(io.BytesIO(tar.extractfile(member).read())) as image:
                    assert (image.format, image.size, image.mode) == ("JPEG", (32, 32), "RGB")
    assert found == named
    first = [r["domain"] for r in rows if r["shard"].startswith("wild-")][:60]
    assert len(set(first)) >= 6


def test_pools_and_tasks_do_not_depend_on_the_number_of_workers(tmp_path, pool):
    folder, _ = pool
    draw_pool(tmp_path / "two", "patterns", IMAGES, 32, seed=3, workers=2)
    assert bytes_of(tmp_path / "two") == bytes_of(folder)
    draw_task(tmp_path / "a", TARGETS[0], 2, 1, 24, seed=3, workers=1)
    draw_task(tmp_path / "b", TARGETS[0], 2, 1, 24, seed=3, workers=2)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_another_seed_gives_another_pool(tmp_path, pool):
    folder, _ = pool
    draw_pool(tmp_path, "patterns", IMAGES, 32, seed=4, workers=1)
    assert not set(bytes_of(tmp_path).values()) & set(bytes_of(folder).values())


def test_a_task_shares_no_image_with_the_pool_nor_train_with_test(tmp_path, pool):
    folder, _ = pool
    domain = TARGETS[1]
    counts = draw_task(tmp_path, domain, 6, 3, 32, seed=3, workers=1)
    assert counts == {"train": 6 * 16, "test": 3 * 16}
    task = list(bytes_of(tmp_path).values())
    assert len(set(task)) == len(task) == 9 * 16
    assert len(list((tmp_path / "train").iterdir())) == 16
    drawn = set()
    for shard in folder.glob("*.tar"):
        with tarfile.open(shard) as tar:
            drawn |= {tar.extractfile(m).read() for m in tar}
    assert len(drawn) == IMAGES
    assert not drawn & set(task)


def test_impossible_requests_are_told_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="images=5"):
        draw_pool(tmp_path, "patterns", 5, 32, 0, 1)
    with pytest.raises(ConfigError, match="side=8"):
        draw_pool(tmp_path, "patterns", 2000, 8, 0, 1)
    with pytest.raises(ConfigError, match="junk"):
        draw_task(tmp_path, "junk", 1, 1, 32, 0, 1)
