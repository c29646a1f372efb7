"""SimCore is Algorithm 1 for the centres of the task's clusters, and stops when a round is too unlike the first."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_selectors import ROWS, SKIPPED, choice, embedded

from sept.data.rng import fold
from sept.errors import ConfigError
from sept.retrieval import select as module
from sept.retrieval.cluster import centroids
from sept.retrieval.features import Features
from sept.retrieval.index import search
from sept.retrieval.select import FilteredLists, Ranked, select_while
from sept.selectors import SELECTORS, SimCore
from sept.selectors.context import SelectionContext

simcore, algorithm1 = (SELECTORS[name].load() for name in ("simcore", "sept"))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Features:
    return embedded(tmp_path_factory.mktemp("features"))


FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def asked(given_: SelectionContext, clusters: int, budget: int | None, stop: float = 0.95) -> SelectionContext:
    return replace(given_, settings=SimCore("simcore", clusters=clusters, stop=stop), budget=budget)


def slowly(ranked: Ranked, budget: int | None, stop: float) -> list[int]:
    """Rank by rank, list by list: each row once; None: the rounds that are not below `stop` of the first."""
    rows: list[int] = []
    for rank in range(ranked.rows.shape[1]):
        mean = ranked.scores[:, rank].mean()
        if budget is None and rank and mean < stop * ranked.scores[:, 0].mean():
            break
        for row in ranked.rows[:, rank].tolist():
            if row not in rows and len(rows) != budget:
                rows.append(row)
    return rows


@FEW
@given(data=st.data())
def test_rows_are_those_of_algorithm_1_over_the_centres(features: Features, data: st.DataObject) -> None:
    queries, clusters, seed = data.draw(st.integers(2, 12)), data.draw(st.integers(1, 12)), data.draw(st.integers(0, 4))
    removed = tuple(data.draw(st.sets(st.integers(0, ROWS - 1), max_size=40)))
    budget = data.draw(st.one_of(st.none(), st.integers(1, 300)))
    stop = data.draw(st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]))
    given_ = asked(choice(features, 1, queries, seed, removed), clusters, budget, stop)
    few = clusters < queries
    looked_up = centroids(given_.queries, clusters, fold(seed, "simcore"), "cpu") if few else given_.queries
    lists = FilteredLists(partial(search, looked_up, features), features.embedded)
    lists.removed = given_.lists.removed
    found = simcore(given_)
    assert found.rows.tolist() == slowly(lists(lists.available), budget, stop)
    assert not {*found.rows.tolist()} & {*removed, *SKIPPED}
    assert simcore(given_).rows.tolist() == found.rows.tolist()
    assert (found.nearest is None) == (not few)
    if found.nearest is not None:
        cosine = looked_up.astype(np.float64) @ given_.queries.T
        np.testing.assert_allclose(cosine[range(clusters), found.nearest], cosine.max(axis=1), atol=2e-6)


def test_as_many_clusters_as_images_are_the_images(features: Features) -> None:
    given_ = choice(features, 90)
    for clusters in (6, 7, 100):
        assert simcore(asked(given_, clusters, 90)).rows.tolist() == algorithm1(given_).rows.tolist()
    assert simcore(asked(given_, 5, 90)).rows.tolist() != algorithm1(given_).rows.tolist()


def test_a_smaller_budget_is_a_beginning_of_a_larger_one(features: Features) -> None:
    given_ = choice(features, 1, 12)
    larger = simcore(asked(given_, 4, 200)).rows.tolist()
    for budget in (1, 3, 4, 50, 199):
        assert simcore(asked(given_, 4, budget)).rows.tolist() == larger[:budget]


@FEW
@given(
    scores=st.lists(st.lists(st.floats(-1, 1), min_size=2, max_size=2), min_size=1, max_size=30),
    least=st.sampled_from([0.5, 0.95, 1.0]),
    first=st.integers(1, 40),
)
def test_where_it_stops_does_not_depend_on_the_first_depth(scores: list[list[float]], least: float, first: int) -> None:
    ordered = -np.sort(-np.array(scores).T, axis=1)
    whole = Ranked(np.stack([np.arange(len(scores)), np.arange(len(scores))[::-1]]), ordered)
    depths: list[int] = []

    def lists(depth: int) -> Ranked:
        depths.append(depth)
        return Ranked(whole.rows[:, :depth], whole.scores[:, :depth])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRST_ROUNDS", first)
        found = select_while(lists, 2, least, len(scores))
    assert found.rows.tolist() == slowly(whole, None, least)
    assert depths == sorted(set(depths))


def test_a_selector_that_does_not_stop_needs_a_number() -> None:
    from sept.compose import experiment

    with pytest.raises(ConfigError) as refused:
        experiment(["budget=auto", "init=sept"])
    assert str(refused.value) == "budget.images=null: selector=sept needs a number; selector=simcore finds its own"
    assert experiment(["budget=auto", "init=rand_init"]).budget.images is None
