"""The distance between domains has its known values, and the counts add up."""

import json
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sept.retrieval import diagnostics
from sept.retrieval.diagnostics import (
    RIDGE,
    by_source,
    coverage,
    domain_distance,
    most_used,
    proxy_a_distance,
    sampled,
    separate,
)
from sept.retrieval.select import round_robin
from sept.retrieval.selections import Selection


def cloud(seed: int, n: int, dim: int = 16, shift: float = 0.0) -> np.ndarray:
    """n Gaussian points of deviation 1, moved along the first axis."""
    points = np.random.default_rng(seed).standard_normal((n, dim))
    points[:, 0] += shift
    return points.astype(np.float32)


def selection(lists: np.ndarray, budget: int) -> Selection:
    """Algorithm 1 over lists whose similarity falls by a tenth a rank."""
    places = round_robin(lists, budget)
    rank, query = np.divmod(places, len(lists))
    return Selection(lists[query, rank], query, rank, 1 - rank / 10, int(rank.max()) + 1)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0, 20.0])
def test_the_distance_is_that_of_the_best_classifier(shift: float) -> None:
    """Two Gaussians a shift apart: the best error is that of a cut half way, Phi(-shift / 2)."""
    expected = 2 * (1 - 2 * NormalDist().cdf(-shift / 2))
    assert proxy_a_distance(cloud(1, 4000), cloud(2, 3000, shift=shift), seed=0) == pytest.approx(expected, abs=0.06)


def test_the_distance_does_not_depend_on_which_domain_has_more_images() -> None:
    few, many = cloud(1, 200), cloud(2, 8000, shift=1.0)
    assert proxy_a_distance(few, many, 0) == pytest.approx(proxy_a_distance(many, few, 0), abs=0.15)
    assert proxy_a_distance(cloud(3, 200), cloud(4, 8000), 0) == pytest.approx(
        0, abs=0.25
    )  # not 2 (1 - 2 * 200 / 8200)


def test_the_distance_is_measured_on_unseen_images() -> None:
    """In 200 dimensions any 60 points can be told apart: only unseen ones tell that there is nothing to tell."""
    left, right = cloud(1, 30, dim=200), cloud(2, 30, dim=200)
    weights, offset = separate(left, right)
    assert (left @ weights + offset > 0).all()
    assert (right @ weights + offset < 0).all()
    assert abs(proxy_a_distance(left, right, 0)) < 1


def test_equal_seeds_give_equal_distances() -> None:
    left, right = cloud(1, 50), cloud(2, 70, shift=1.0)
    assert proxy_a_distance(left, right, 3) == proxy_a_distance(left, right, 3)
    assert len({proxy_a_distance(left, right, seed) for seed in range(10)}) > 1


def test_images_that_are_all_alike_have_no_distance() -> None:
    same = np.ones((10, 4), np.float32)
    assert proxy_a_distance(same, same, 0) == 0


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), n=st.integers(2, 40), m=st.integers(2, 40), dim=st.integers(1, 30))
def test_the_classifier_is_ridge_regression_with_both_domains_weighing_the_same(
    seed: int, n: int, m: int, dim: int
) -> None:
    """The closed form against weighted least squares on rows, one a sample, and the ridge's own."""
    left, right = cloud(seed, n, dim), cloud(seed + 1, m, dim, shift=1.0)
    weights, offset = separate(left, right)
    middle = (left.mean(0, dtype=np.float64) + right.mean(0, dtype=np.float64)) / 2
    samples = np.concatenate([left, right]) - middle
    share = np.sqrt(np.concatenate([np.full(n, 0.5 / n), np.full(m, 0.5 / m)]))
    ridge = RIDGE * ((share[:, None] * samples) ** 2).sum() / dim
    rows = np.concatenate([share[:, None] * samples, np.sqrt(ridge) * np.eye(dim)])
    target = np.concatenate([share * np.repeat([1.0, -1.0], [n, m]), np.zeros(dim)])
    expected = np.linalg.lstsq(rows, target)[0]
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    assert offset == pytest.approx(-middle @ weights)


def test_a_selection_of_the_tasks_kind_is_nearer_than_a_random_one() -> None:
    found = domain_distance(cloud(1, 500), cloud(2, 500, shift=3.0), cloud(3, 100), seed=0)
    assert found["a_distance_selection"] < 0.5 < 1.5 < found["a_distance_random"]


def test_large_selections_are_sampled_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "MOST_VECTORS", 10)
    drawn = sampled(np.arange(100), 0)
    assert len(drawn) == 10
    assert (np.diff(drawn) > 0).all()
    assert sampled(np.arange(10), 0).tolist() == list(range(10))


LISTS = np.array([[5, 6, 7, 8], [5, 7, 9, 1], [5, 2, 6, 3]])


def test_coverage_counts_by_query_and_by_class() -> None:
    found = coverage(selection(LISTS, 7), ["rose", "iris", "rose"])
    assert found == {"per_query": [3, 3, 1], "per_class": {"iris": 3, "rose": 4}}


def test_sources_are_shown_beside_their_share_of_the_pool() -> None:
    found = by_source(["b", "b", "a"], {"b": 10, "a": 20, "c": 70})
    assert list(found) == ["b", "a", "c"]
    assert found["b"] == pytest.approx({"images": 2, "share": 2 / 3, "share_of_pool": 0.1})
    assert found["c"] == pytest.approx({"images": 0, "share": 0, "share_of_pool": 0.7})


def test_the_most_used_image_is_the_one_that_most_lists_name() -> None:
    found = most_used(LISTS, selection(LISTS, 7))
    assert found["most_used"][:4] == [{"row": row, "queries": n} for row, n in ((5, 3), (6, 2), (7, 2), (1, 1))]
    assert found["lists_mean"] == pytest.approx((3 + 2 + 2 + 1 + 1 + 1 + 1) / 7)
    assert found["shared"] == pytest.approx(3 / 7)
    shallow = most_used(LISTS, selection(LISTS, 4))  # 5, 6, 7, 2: read to a depth of 2
    assert shallow["most_used"] == [{"row": row, "queries": n} for row, n in ((5, 3), (2, 1), (6, 1), (7, 1))]


def test_everything_fits_into_a_manifest() -> None:
    chosen = selection(LISTS, 5)
    found = [
        coverage(chosen, ["a", "b", "c"]),
        by_source(["x"], {"x": 3}),
        most_used(LISTS, chosen),
        domain_distance(cloud(1, 9), cloud(2, 9), cloud(3, 9), 0),
    ]
    assert json.loads(json.dumps(found)) == found
