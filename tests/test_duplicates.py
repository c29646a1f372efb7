"""Copies are known and other images left alone; a selection without leaks is that of a clean pool."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sept.data.images import decode
from sept.data.patterns.domains import classes, draw
from sept.errors import ConfigError
from sept.retrieval.duplicates import Pairs, copies, copies_within, groups
from sept.retrieval.fingerprints import THUMBNAIL, Thumbnails, area_means, global_hash, thumbnails, window_hashes
from sept.retrieval.select import FilteredLists, Ranked, find_leaks, select, without

SIDE, TESTS, CLEAN = 32, 128, 1000


def jpeg(pixels: np.ndarray, quality: int = 92) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=quality)
    return decode(stream.getvalue())


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


COPIES = {
    "re-encoded": lambda pixels: jpeg(pixels, 30),
    "half": lambda pixels: jpeg(resized(pixels, SIDE // 2), 85),
    "larger": lambda pixels: jpeg(resized(pixels, 55), 60),
    "mirrored": lambda pixels: jpeg(pixels[:, ::-1], 60),
    "cropped": lambda pixels: jpeg(pixels[:30, 1:31], 80),
    "mirrored, cropped and larger": lambda pixels: jpeg(resized(np.ascontiguousarray(pixels[1:, :0:-1]), 48), 75),
}


@pytest.fixture(scope="module")
def world() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Test images of one domain, and others of the same classes."""
    drawn = [jpeg(draw("gears", n % classes("gears"), SIDE, 0, n)) for n in range(TESTS + CLEAN)]
    return drawn[:TESTS], drawn[TESTS:]


@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_are_found(world: tuple[list, list], kind: str) -> None:
    tests, _ = world
    pairs = copies(thumbnails(COPIES[kind](image) for image in tests), thumbnails(tests)).nearest()
    assert len(pairs) >= 0.95 * TESTS
    assert (pairs.candidate == pairs.reference).mean() > 0.95


def test_clean_images_of_the_same_classes_are_left_alone(world: tuple[list, list]) -> None:
    tests, clean = world
    assert len(copies(thumbnails(clean), thumbnails(tests)).nearest()) <= 0.001 * CLEAN


def test_copies_are_found_whatever_the_sizes_of_the_products(
    world: tuple[list, list], monkeypatch: pytest.MonkeyPatch
) -> None:
    tests, clean = world
    candidates = thumbnails([*(COPIES["cropped"](image) for image in tests), *clean[:300]])
    expected = copies(candidates, thumbnails(tests))
    for name, value in (("CANDIDATES", 7), ("REFERENCES", 13), ("PAIRS", 5)):
        monkeypatch.setattr(f"sept.retrieval.duplicates.{name}", value)
    found = copies(candidates, thumbnails(tests))
    assert found.candidate.tolist() == expected.candidate.tolist()
    assert found.reference.tolist() == expected.reference.tolist()
    np.testing.assert_allclose(found.distance, expected.distance, atol=1e-6)


def test_another_exposure_or_colour_is_another_image(world: tuple[list, list]) -> None:
    tests, _ = world
    for gain in (0.8, (1.0, 0.9, 0.5)):
        changed = thumbnails((image * np.array(gain)).astype(np.uint8) for image in tests)
        assert len(copies(changed, thumbnails(tests)).nearest()) < 0.05 * TESTS


def test_flat_images_are_copies_of_none() -> None:
    flat = thumbnails(np.full((40, 60, 3), level, np.uint8) for level in (0, 127, 128, 255))
    assert not len(copies(flat, flat))


def test_nothing_is_compared_with_nothing(world: tuple[list, list]) -> None:
    some = thumbnails(world[0][:3])
    assert not len(copies(thumbnails([]), some))
    assert not len(copies(some, thumbnails([])))
    assert groups(copies_within(thumbnails([])), 0).tolist() == []


def test_copies_within_a_set_are_paired_once_and_grouped(world: tuple[list, list]) -> None:
    a, b, c = world[0][:3]
    found = copies_within(thumbnails([a, jpeg(b, 50), c, jpeg(a[:, ::-1], 50), b, jpeg(a, 40)]))
    assert list(zip(found.candidate.tolist(), found.reference.tolist(), strict=True)) == sorted(
        zip(found.candidate.tolist(), found.reference.tolist(), strict=True), key=lambda pair: pair[0]
    )
    assert set(zip(found.candidate.tolist(), found.reference.tolist(), strict=True)) == {(0, 3), (0, 5), (1, 4), (3, 5)}
    assert groups(found, 6).tolist() == [0, 1, 2, 0, 1, 0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=15))
def test_groups_are_connected_components(edges: list[tuple[int, int]]) -> None:
    label = list(range(10))
    for _ in range(10):
        for a, b in edges:
            label[a] = label[b] = min(label[a], label[b])
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    assert groups(Pairs(ends[:, 0], ends[:, 1], np.zeros(len(ends), np.float32)), 10).tolist() == label


@given(length=st.integers(1, 70), cells=st.integers(1, 40))
def test_area_means_weigh_every_pixel_by_its_share(length: int, cells: int) -> None:
    weights = area_means(length, 0, length, cells)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights.sum(0), cells / length, rtol=1e-4)
    fine = np.repeat(np.arange(length, dtype=np.float64), cells)  # each cell is `length` of these
    np.testing.assert_allclose(weights @ np.arange(length), fine.reshape(cells, length).mean(1), atol=1e-3)


def test_the_first_window_is_the_whole_image_and_the_others_its_crops(world: tuple[list, list]) -> None:
    rng = np.random.default_rng(0)
    smooth = np.asarray(Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize((400, 400), 2))
    some = thumbnails([smooth])
    all_windows = window_hashes(some)
    assert all_windows.unit[0, 0].tolist() == global_hash(some).unit[0].tolist()
    corner = global_hash(thumbnails([smooth[24:, 24:]]))  # the last window, 0.94 at the lower right
    assert corner.unit[0] @ all_windows.unit[0, -1] > 0.999
    assert corner.unit[0] @ all_windows.unit[0, -1] > max(corner.unit[0] @ all_windows.unit[0, :-1].T)
    assert some.grey.shape == (1, THUMBNAIL, THUMBNAIL)


def test_cards_of_narrow_and_tiny_images_exist() -> None:
    odd = thumbnails([np.zeros((1, 1, 3), np.uint8), np.full((3, 150, 3), 9, np.uint8)])
    assert isinstance(odd, Thumbnails)
    assert odd.grey[1].tolist() == np.full((THUMBNAIL, THUMBNAIL), 9).tolist()


def top_of(lists: Ranked) -> Callable[[int], Ranked]:
    return lambda depth: Ranked(lists.rows[:, :depth], lists.scores[:, :depth])


@st.composite
def pools(draw_: st.DrawFn) -> tuple[Ranked, set[int], int]:
    """Complete lists over a small pool, its leaks, and a budget."""
    rng = np.random.default_rng(draw_(st.integers(0, 2**32)))
    queries, rows = draw_(st.integers(1, 5)), draw_(st.integers(2, 30))
    scores = rng.random((queries, rows))
    order = np.argsort(-scores, axis=1)
    leaks = draw_(st.sets(st.integers(0, rows - 1), max_size=rows - 1))
    return Ranked(order, np.take_along_axis(scores, order, 1)), leaks, draw_(st.integers(1, rows - len(leaks)))


@settings(deadline=None)
@given(pools())
def test_a_selection_without_leaks_is_that_of_a_clean_pool(pool: tuple[Ranked, set[int], int]) -> None:
    lists, leaks, budget = pool
    queries, rows = lists.rows.shape
    clean = without(lists, np.array(sorted(leaks), dtype=np.int64))
    expected = select(top_of(clean), queries, budget, rows - len(leaks))
    closed = FilteredLists(top_of(lists), rows)
    asked: list[int] = []

    def choose(removed: np.ndarray) -> np.ndarray:
        closed.removed = removed
        return select(closed, queries, budget, closed.available).rows

    def is_leak(wanted: np.ndarray) -> np.ndarray:
        asked.extend(wanted.tolist())
        return np.isin(wanted, list(leaks))

    found, removed = find_leaks(choose, is_leak)
    assert found.tolist() == expected.rows.tolist()
    assert len(found) == budget
    assert set(removed.tolist()) <= leaks
    assert len(asked) == len(set(asked))  # each about to be chosen, once
    assert set(asked) >= {*found.tolist(), *removed.tolist()}


def test_one_search_serves_a_few_leaks() -> None:
    lists = np.stack([np.random.default_rng(i).permutation(1000) for i in range(10)])
    depths: list[int] = []

    def search(depth: int) -> Ranked:
        depths.append(depth)
        return Ranked(lists[:, :depth], np.zeros((10, depth)))

    closed = FilteredLists(search, 1000)

    def choose(removed: np.ndarray) -> np.ndarray:
        closed.removed = removed
        return select(closed, 10, 100, closed.available).rows

    rows, removed = find_leaks(choose, lambda wanted: wanted % 50 == 0)
    assert (len(rows), len(depths)) == (100, 1)
    assert len(removed)
    assert not (rows % 50 == 0).any()


def test_a_pool_of_leaks_cannot_meet_the_budget() -> None:
    lists = Ranked(np.arange(6)[None], np.zeros((1, 6)))
    closed = FilteredLists(top_of(lists), 6)

    def choose(removed: np.ndarray) -> np.ndarray:
        closed.removed = removed
        return select(closed, 1, 4, closed.available).rows

    with pytest.raises(ConfigError, match=r"budget\.images=4 but the pool holds only 3 readable images"):
        find_leaks(choose, lambda wanted: wanted < 3)
